"""Suspend and restore: a VM's memory and devices in a file, by migration (QEMU's docs/devel/migration).

The sandbox lets QEMU start nothing, and the state directory is not QEMU's to write in, so QEMU gets the open file
(``getfd``, ``fd:``). The file becomes the saved state by a rename after everything is on the disk: there is a whole
one or none.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from carmel.errors import CarmelError, InsufficientStorage, Refused
from carmel.hypervisor.failures import QEMUFailed
from carmel.hypervisor.files import sync_directory
from carmel.hypervisor.machine import MachineState

if TYPE_CHECKING:
    from carmel.hypervisor.qemu_machine import QemuMachine

_AS_FAST_AS_IT_GOES = 1 << 50
_POLL_SECONDS = 0.02
_STALLED_SECONDS = 60.0
_FINISHED = frozenset({"completed", "failed", "cancelled"})


async def save(machine: QemuMachine) -> None:
    """Write ``machine``'s state. On any failure it runs on as before and nothing is left.

    Raises ``Refused`` (``NonMigratableDevice``, ``DevicesPlugged``), ``InsufficientStorage`` or ``QEMUFailed``.
    """
    if not machine.record.devices_as_started:
        raise Refused(
            "the VM cannot be suspended: NICs or disks were plugged or unplugged since its start, and it would be "
            "started with others than its saved memory knows",
            code="DevicesPlugged",
            hint="restart the VM, or power it off",
        )
    blockers = await machine.migration_blockers()
    if blockers:
        raise Refused(
            f"the VM cannot be suspended: {blockers[0]}",
            code="NonMigratableDevice",
            hint=_instead(blockers[0]),
        )
    paths, ran = machine.paths, machine.state is MachineState.RUNNING
    part = paths.saved_state_in_progress
    try:
        await machine.execute("stop")
        await _write(machine, part)
        await asyncio.to_thread(_finish, part, paths.saved_state)
    except BaseException:
        with contextlib.suppress(CarmelError):
            await undo(machine)
            if not ran:
                await machine.execute("stop")
        raise


def _instead(blocker: str) -> str:
    if "vfio" in blocker.lower():
        return "the state of a function of the host cannot be saved: unplug it, or power the VM off"
    return "an NVMe disk's state cannot be saved: use the bus virtio or scsi"


async def undo(machine: QemuMachine) -> None:
    """Let ``machine`` run on after a suspend that did not come to its end."""
    machine.paths.saved_state_in_progress.unlink(missing_ok=True)
    await machine.execute("migrate_cancel")
    # After a finished migration only this makes QEMU take its disks back.
    await machine.execute("cont")


async def load(machine: QemuMachine, *, paused: bool) -> None:
    """Fill ``machine``, which waits for it, from its saved state. The file stays. Raises ``QEMUFailed``."""
    descriptor = await asyncio.to_thread(os.open, machine.paths.saved_state, os.O_RDONLY | os.O_CLOEXEC)
    try:
        await machine.monitor.qmp.send_file("state", descriptor)
    finally:
        os.close(descriptor)
    await machine.execute("migrate-incoming", {"uri": "fd:state"})
    # Bad state ends QEMU, and with it the connection.
    await _until_finished(machine)
    if not paused:
        await machine.execute("cont")


async def _write(machine: QemuMachine, part: Path) -> None:
    descriptor = await asyncio.to_thread(os.open, part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        await machine.monitor.qmp.send_file("state", descriptor)
    finally:
        os.close(descriptor)
    await machine.execute("migrate-set-parameters", {"max-bandwidth": _AS_FAST_AS_IT_GOES})
    await machine.execute("migrate", {"uri": "fd:state"})
    await _until_finished(machine)


async def _until_finished(machine: QemuMachine) -> None:
    """A file does not tell when it is done, so ask; a disk that takes nothing for a minute is given up."""
    loop = asyncio.get_running_loop()
    moved, deadline = -1, loop.time() + _STALLED_SECONDS
    while True:
        info = await machine.execute("query-migrate")
        status = info.get("status")
        if status in _FINISHED:
            break
        now = int((info.get("ram") or {}).get("transferred", 0))
        if now != moved:
            moved, deadline = now, loop.time() + _STALLED_SECONDS
        if loop.time() > deadline:
            raise QEMUFailed(f"saving the VM's memory stood still for {_STALLED_SECONDS:g} s")
        await asyncio.sleep(_POLL_SECONDS)
    if status != "completed":
        raise _failure(str(info.get("error-desc") or status), machine.paths.state)


def _failure(why: str, directory: Path) -> CarmelError:
    free = os.statvfs(directory)
    if free.f_bavail * free.f_frsize < 1024 * 1024:
        return InsufficientStorage("the disk is full: the VM's memory could not be saved", hint="free some space")
    return QEMUFailed(f"QEMU could not move the VM's state: {why}")


def _finish(part: Path, destination: Path) -> None:
    descriptor = os.open(part, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.rename(destination)
    sync_directory(destination.parent)
