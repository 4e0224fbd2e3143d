"""NBD servers that QEMU is a client of: whether one answers, and how a disk goes whose server does not.

A block device goes when what is under way on it is done, and QEMU waits for that with all that it has to do, the VM's
vCPUs included. While a server is away that would be until the disk's stall is over (seen with QEMU 7.2).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from carmel.errors import Unavailable
from carmel.hypervisor.devices import Device, NbdServer

if TYPE_CHECKING:
    from carmel.hypervisor.qemu_machine import QemuMachine

_REACH_SECONDS = 5.0
_GREETING = b"NBDMAGIC"
"""The first that a server says (NBD's doc/proto.md, "Handshake")."""
_MORE_SECONDS = 1.0
"""What QEMU's clock may be behind ours."""
_FORGET_SECONDS = 600.0
"""Who has not asked for so long asks of another time that the server is away: in between it may have been back."""


@dataclass(frozen=True, slots=True)
class Away:
    """A server that was seen away: the first and the last time (monotonic seconds)."""

    first: float
    last: float

    @classmethod
    def seen(cls, before: Away | None, now: float) -> Away:
        """Seen away ``now``, too."""
        return cls(now if before is None or now - before.last > _FORGET_SECONDS else before.first, now)


async def require_reachable(server: NbdServer, disk: str) -> None:
    """QEMU stands still while it connects: that is for servers that answer. Raises ``Unavailable``."""
    if (why := await _out_of_reach(server)) is not None:
        raise Unavailable(
            f"the NBD server {server.host}:{server.port} of the disk {disk} does not answer: {why}",
            code="NBDUnreachable",
            hint="is it up?",
        )


async def require_releasable(machine: QemuMachine, device: Device) -> None:
    """Before a guest lets go of a disk: nothing of its waits for the server, or will. Raises ``Unavailable``: it may,
    tried again."""
    server = device.server
    if server is None:
        return
    if (why := await _out_of_reach(server)) is None:
        machine.servers_away.pop(device.id, None)
        return
    away = Away.seen(machine.servers_away.get(device.id), time.monotonic())
    machine.servers_away[device.id] = away
    # It may have been away for longer; what is under way then has failed before.
    left = away.first + server.stall_seconds + _MORE_SECONDS - away.last
    if left > 0:
        raise Unavailable(
            f"the NBD server {server.host}:{server.port} of the disk {device.name} does not answer ({why}), and the "
            "VM would stand still until it does",
            code="NBDUnreachable",
            hint=f"the disk goes when its server is back, or in {left:.0f} s, when its stall is over",
        )
    await _disconnect(machine, device)


async def disconnect_if_away(machine: QemuMachine, device: Device) -> None:
    """Before the nodes of a disk go that no guest has any more: they do not wait for a server that is away."""
    if device.server is not None and await _out_of_reach(device.server) is not None:
        await _disconnect(machine, device)


async def _disconnect(machine: QemuMachine, device: Device) -> None:
    """A last flush would begin to wait only now. A connection that was shut down is not made again (QEMU's
    qapi/yank.json)."""
    known = await machine.execute("query-yank")
    instances = [one for one in known if one.get("node-name") in device.nodes]
    if instances:
        await machine.execute("yank", {"instances": instances})


async def _out_of_reach(server: NbdServer) -> str | None:
    """Why it does not answer. A relay in between may take a connection that leads nowhere: the server greets."""
    writer = None
    try:
        async with asyncio.timeout(_REACH_SECONDS):
            reader, writer = await asyncio.open_connection(server.host, server.port)
            greeting = await reader.readexactly(len(_GREETING))
    except asyncio.IncompleteReadError:
        return "it ends the connection"
    except (OSError, TimeoutError) as exc:
        return str(exc) or "time-out"
    finally:
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    return None if greeting == _GREETING else "what is there is no NBD server"
