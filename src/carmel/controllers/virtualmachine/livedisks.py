"""Disks that come and go while their VM runs.

As with NICs: what the machine has is asked of the machine, and what each disk was plugged in as is kept with what the
VM was started from, before it is plugged and until it is unplugged. A disk's Volume is attached before it comes, and
let go of when it is gone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

from carmel.controllers.virtualmachine.launched import LaunchedSpecs
from carmel.controllers.virtualmachine.observed import Observed
from carmel.controllers.virtualmachine.steps import PlugDisk, Step, UnplugDisk
from carmel.controllers.virtualmachine.waiting import disk_waits_for
from carmel.errors import CarmelError
from carmel.hypervisor.config import AnyDisk
from carmel.hypervisor.machine import Machine, MachineState
from carmel.resources.virtualmachine import Disk, VirtualMachine


def disk_steps(observed: Observed) -> tuple[Step, ...]:
    """The next one that makes the disks of a running VM those of its spec, as far as that can be done while it runs."""
    return tuple(_steps(observed))[:1]


def _steps(observed: Observed) -> Iterator[Step]:
    machine, launched = observed.live, observed.launched
    if machine is None or launched is None or not _known(observed):
        return
    wanted = {view.disk.name for view in observed.disks}
    started = {disk.name for disk in launched.spec.disks}
    # A guest that stands still lets go of nothing.
    if machine.state is MachineState.RUNNING:
        for name in sorted({*machine.disks, *started} - wanted):
            if name not in observed.disk_refusals:
                yield UnplugDisk(name)
    for view in observed.disks:
        absent = view.disk.name not in machine.disks
        if absent and view.disk.name not in observed.disk_refusals and disk_waits_for(view, observed) is None:
            yield PlugDisk(view.disk.name)


def unplugged_disks(observed: Observed) -> list[tuple[str, str]]:
    """What the running VM waits for to have the disks of its spec: the disk's name, and a sentence."""
    machine = observed.live
    if machine is None or not _known(observed):
        return []
    found = [(name, refusal.message) for name, refusal in observed.disk_refusals.items()]
    for view in observed.disks:
        if view.disk.name not in machine.disks and view.disk.name not in observed.disk_refusals:
            missing = disk_waits_for(view, observed)
            found += [] if missing is None else [(view.disk.name, missing.message or missing.reason)]
    return found


def disks_need_restart(observed: Observed) -> bool:
    """Whether disks that are there are wanted otherwise, or some cannot come or go while the VM runs."""
    launched = observed.launched
    if launched is None:
        return False
    was = {disk.name: _plugged_as(disk) for disk in launched.spec.disks}
    wanted = {disk.name: _plugged_as(disk) for disk in observed.vm.spec.disks}
    if any(was[name] != wanted[name] for name in was.keys() & wanted.keys()):
        return True
    if observed.live is None or not _known(observed):
        return was.keys() != wanted.keys()
    return any(refusal.again is None for refusal in observed.disk_refusals.values())


def _plugged_as(disk: Disk) -> Disk:
    """What becomes of a disk later is none of QEMU's business."""
    return disk.model_copy(update={"delete_policy": None})


def _known(observed: Observed) -> bool:
    """Of a VM that an older Carmel started it is not known which disks it has."""
    launched = observed.launched
    return observed.live is not None and launched is not None and bool(observed.live.disks or not launched.spec.disks)


@dataclass(frozen=True, slots=True)
class LiveDisks:
    """Plugs and unplugs. Each may be repeated. ``config``: what a disk of a VM is to QEMU."""

    config: Callable[[VirtualMachine, Disk], Awaitable[AnyDisk]]
    launched: LaunchedSpecs

    async def plug(self, machine: Machine, observed: Observed, name: str) -> None:
        """Raises ``CarmelError``; then it is not plugged."""
        disk = next(view.disk for view in observed.disks if view.disk.name == name)
        uid = machine.launch.uid
        config = await self.config(observed.vm, disk)
        try:
            await self._note(uid, name, disk)
            await machine.plug_disk(config)
        except BaseException:
            with contextlib.suppress(CarmelError):
                await self._note(uid, name, None)
            raise

    async def unplug(self, machine: Machine, name: str) -> None:
        """Raises ``CarmelError``; then it is still there."""
        await machine.unplug_disk(name)
        await self._note(machine.launch.uid, name, None)

    async def _note(self, uid: str, name: str, disk: Disk | None) -> None:
        launched = await self.launched.get(uid)
        if launched is not None:
            others = [one for one in launched.spec.disks if one.name != name]
            disks = others if disk is None else [*others, disk]
            spec = launched.spec.model_copy(update={"disks": disks})
            await self.launched.put(uid, replace(launched, spec=spec))
