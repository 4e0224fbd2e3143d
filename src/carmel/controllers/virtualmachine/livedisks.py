"""Disks that come and go while their VM runs. A disk's Volume is attached before it comes, and let go of when it is
gone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace

from carmel.controllers.virtualmachine.hotplug import Offer
from carmel.controllers.virtualmachine.livedevices import LiveDevices, Wanted
from carmel.controllers.virtualmachine.observed import Launched, Observed
from carmel.controllers.virtualmachine.waiting import disk_waits_for
from carmel.hypervisor.config import AnyDisk
from carmel.hypervisor.devices import DeviceKind
from carmel.hypervisor.machine import Machine
from carmel.resources.virtualmachine import Disk, VirtualMachine


def live_disks(observed: Observed) -> LiveDevices:
    launched, machine = observed.launched, observed.live
    return LiveDevices(
        kind=DeviceKind.DISK,
        observed=observed,
        wanted=tuple(Wanted(_plugged_as(view.disk), disk_waits_for(view, observed)) for view in observed.disks),
        started={disk.name: _plugged_as(disk) for disk in launched.spec.disks} if launched is not None else {},
        there=machine.disks if machine is not None else (),
    )


def _plugged_as(disk: Disk) -> Disk:
    """What becomes of a disk later is none of QEMU's business."""
    return disk.model_copy(update={"delete_policy": None})


@dataclass(frozen=True, slots=True)
class PluggableDisks:
    """``config``: what a disk of a VM is to QEMU."""

    config: Callable[[VirtualMachine, Disk], Awaitable[AnyDisk]]

    @contextlib.asynccontextmanager
    async def offer(self, machine: Machine, observed: Observed, name: str) -> AsyncIterator[Offer | None]:
        disk = next(view.disk for view in observed.disks if view.disk.name == name)
        config = await self.config(observed.vm, disk)
        yield Offer(lambda launched: _with(launched, disk), lambda: machine.plug_disk(config))

    async def unplug(self, machine: Machine, name: str) -> None:
        await machine.unplug_disk(name)

    def without(self, launched: Launched, name: str) -> Launched:
        return _set_disks(launched, _others(launched, name))

    async def release(self, machine: Machine) -> None:
        """Its Volume is detached when the machine has it no more: that is a step of its own."""


def _with(launched: Launched, disk: Disk) -> Launched:
    return _set_disks(launched, [*_others(launched, disk.name), disk])


def _others(launched: Launched, name: str) -> list[Disk]:
    return [one for one in launched.spec.disks if one.name != name]


def _set_disks(launched: Launched, disks: list[Disk]) -> Launched:
    return replace(launched, spec=launched.spec.model_copy(update={"disks": disks}))
