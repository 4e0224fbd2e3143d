"""What realises the network of provider ``user`` here: passt where it works, else QEMU's own (slirp).

passt passes connections on socket to socket, in a process without any rights, and is several times faster. It may be
missing, or fail (no route, namespaces forbidden in a container): so it is tried once, not guessed.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from enum import StrEnum

from carmel.errors import CarmelError
from carmel.run import Command, Limits, Runner, find_program

PROGRAM = "passt"
_TRY_SECONDS = 3.0
_ARP_TYPE = b"\x08\x06"
_GUEST_MAC = b"\x52\x54\x00\x00\x00\x01"
_ARP_REQUEST = b"".join(
    (
        b"\xff" * 6, _GUEST_MAC, _ARP_TYPE,
        b"\x00\x01\x08\x00\x06\x04\x00\x01",
        _GUEST_MAC, bytes((10, 0, 2, 15)), bytes(6), bytes((10, 0, 2, 2)),
        bytes(18),
    )
)  # fmt: skip


class Backend(StrEnum):
    PASST = "passt"
    SLIRP = "slirp"


class Backends:
    """``user`` and ``group``: whom passt runs as where the daemon is root. ``forced`` wins over what is found."""

    def __init__(
        self, runner: Runner, *, user: int | None = None, group: int | None = None, forced: Backend | None = None
    ) -> None:
        self._runner = runner
        self._user = user
        self._group = group
        self._best = forced
        self._lock = asyncio.Lock()

    async def best(self) -> Backend:
        async with self._lock:
            if self._best is None:
                self._best = Backend.PASST if await self._passt_works() else Backend.SLIRP
            return self._best

    async def _passt_works(self) -> bool:
        program = find_program(PROGRAM)
        if program is None:
            return False
        ours, its = socket.socketpair()
        with ours, its:
            ours.setblocking(False)
            # A connection that is there already: no file to leave behind, and passt ends with us, whatever ends us.
            command = Command(
                [program, "--foreground", "--quiet", "--ipv4-only", "--fd", str(its.fileno())],
                user=self._user,
                group=self._group,
                limits=Limits(seconds=_TRY_SECONDS),
                pass_fds=(its.fileno(),),
            )
            run = asyncio.create_task(self._runner.run(command, check=False))
            answer = asyncio.create_task(_ask(ours))
            try:
                await asyncio.wait((run, answer), return_when=asyncio.FIRST_COMPLETED, timeout=_TRY_SECONDS)
                return answer.done() and answer.exception() is None and answer.result()
            finally:
                for task in (answer, run):
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError, CarmelError, OSError):
                        await task


async def _ask(connection: socket.socket) -> bool:
    """Ask for an address as a guest does (ARP, RFC 826), framed as QEMU's streams are: whether anybody answers."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(connection, len(_ARP_REQUEST).to_bytes(4, "big") + _ARP_REQUEST)
    received = await loop.sock_recv(connection, 2048)
    return _ARP_TYPE in received
