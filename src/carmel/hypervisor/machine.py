"""The face of this room: a ``Hypervisor`` that starts and finds VMs, and a ``Machine`` for each that runs.

``qemu`` holds the real ones. The controller of VirtualMachines knows only these protocols.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from carmel.hypervisor.config import Accelerator, AnyDisk, MachineConfig, NicConfig, Pinning
from carmel.resources.virtualmachine import GuestStatus, Termination


class MachineState(StrEnum):
    """What QEMU is doing. ``ENDED``: there is no process any more, or one that only waits to be collected.

    ``SHUTDOWN`` and ``PANICKED``: the guest came to its end and QEMU was told to wait (``-action``), so that a
    daemon that was away can still ask.
    """

    RUNNING = "running"
    PAUSED = "paused"
    SHUTDOWN = "shutdown"
    PANICKED = "panicked"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of one VM, as its launch record has it."""

    launch_id: str
    uid: str
    pid: int
    machine_type: str
    accelerator: Accelerator
    cpu_model: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class MachineChange:
    """Something about a VM changed: look at it again."""

    uid: str
    what: str


class ConsoleStream(Protocol):
    """Bytes to and from a serial console. Whoever does not read is dropped; the guest never waits."""

    async def read(self) -> bytes:
        """The next bytes; empty at the end."""
        ...

    async def write(self, data: bytes) -> None: ...

    async def close(self) -> None: ...


class Machine(Protocol):
    """One VM that was launched, now or by an earlier daemon."""

    @property
    def launch(self) -> Launch: ...

    @property
    def state(self) -> MachineState: ...

    @property
    def pinning(self) -> Pinning | None:
        """Where it is held by its launch record, which ``repin`` keeps true; ``None``: nowhere."""
        ...

    @property
    def nics(self) -> Sequence[str]:
        """Names of the NICs that it has: those of its start and those that were plugged, without those unplugged.
        Those of a VM that an older Carmel started are not known."""
        ...

    @property
    def disks(self) -> Sequence[str]:
        """The same of disks."""
        ...

    async def resume(self) -> None:
        """Let the vCPUs run (``cont``)."""
        ...

    async def pause(self) -> None: ...

    async def request_shutdown(self) -> None:
        """Press the power button. The guest may take its time, or ignore it."""
        ...

    async def reset(self) -> None:
        """A hard reset without ending the process."""
        ...

    async def kill(self, reason: str) -> Termination:
        """Power off: QEMU and its helpers are gone when this returns, and the record with them."""
        ...

    async def suspend(self) -> None:
        """Save memory and devices to ``MachinePaths.saved_state`` (all or nothing), then end.

        Raises ``Refused`` when QEMU cannot save a device (``NonMigratableDevice``), or when it has others than at its
        start (``DevicesPlugged``); the VM then runs on.
        """
        ...

    async def collect(self) -> Termination:
        """How it ended; removes what the run left (record, sockets, helpers). Only for a VM that came to its end."""
        ...

    async def repin(self, pinning: Pinning) -> None:
        """Move the running VM: its threads to other CPUs, its memory (what is there and what will be) to other nodes.

        To as many nodes, where what was on the lowest comes to the lowest and so on, or all to one.
        Everything or nothing as far as the kernel allows; pages that it cannot move stay and are found by later
        accesses. Raises ``Refused`` (code ``CannotPin``) where this host has no means for it.
        """
        ...

    async def plug_nic(self, nic: NicConfig) -> None:
        """Plug a NIC into the running VM: all or nothing. Its descriptors stay the caller's, who closes them.

        Four devices can be plugged, eight where the guest has an IOMMU. Raises ``Refused`` (``AlreadyPlugged``,
        ``NoFreePort``, ``NotPluggable``, ``NotSupported``, what ``passthrough`` refuses, ``MachineNotRunning``).
        """
        ...

    async def unplug_nic(self, name: str) -> None:
        """Have the guest let go of a NIC: it is gone when this returns. One that is not there is fine.

        Raises ``Refused`` (``NotPluggable``: it is there from the start, and has no port of its own), ``Unavailable``
        (``GuestKeepsDevice``, ``GuestStandsStill``): then it is still there, and may go later.
        """
        ...

    async def plug_disk(self, disk: AnyDisk) -> None:
        """Plug a disk (of bus virtio or nvme) into the running VM: all or nothing.

        Raises what ``plug_nic`` does, ``Unavailable`` (``NBDUnreachable``), or what is wrong with the disk.
        """
        ...

    async def unplug_disk(self, name: str) -> None:
        """As ``unplug_nic``. What the guest did not write by then is lost: it should have unmounted the disk.

        ``Unavailable`` (``NBDUnreachable``) while the server of its blocks is away and its stall not over.
        """
        ...

    async def migration_blockers(self) -> Sequence[str]:
        """Why QEMU could not move this VM live, in its words. Empty: it could."""
        ...

    async def guest(self) -> GuestStatus | None:
        """What the guest agent says, ``None`` when there is none that answers."""
        ...

    async def guest_addresses(self) -> dict[str, list[str]]:
        """MAC address to IP addresses, from the guest agent; empty without one."""
        ...


class Hypervisor(Protocol):
    """Starts VMs and finds those that run."""

    async def launch(self, config: MachineConfig, *, paused: bool = False, restore: bool = False) -> Machine:
        """Start a VM; with ``restore`` from its saved state, which is removed once it runs. The descriptors of its
        NICs stay the caller's, who closes them afterwards.

        All or nothing. Raises ``Refused`` (``PortInUse``, ``NoAccelerator``, ``QEMUTooOld``, ``MachineRunning``...),
        ``Unavailable``, or what QEMU said before it ended (``QEMUFailed``).
        """
        ...

    async def adopt(self) -> Sequence[Machine]:
        """Every VM with a launch record, running or ended: called once when the daemon starts.

        Processes that belong to no valid record are ended; sockets without a process removed.
        """
        ...

    def machine(self, uid: str) -> Machine | None: ...

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[MachineChange]]:
        """Tells every change of state of every VM from now on."""
        ...

    async def open_console(self, uid: str) -> ConsoleStream: ...

    def serial_log(self, uid: str) -> Sequence[Path]:
        """The log's files, oldest first; together they have a bounded size."""
        ...

    async def forget(self, uid: str) -> None:
        """Remove all of a VM's files: it was deleted. It must not run."""
        ...

    async def close(self) -> None:
        """Let go of all VMs; they run on."""
        ...
