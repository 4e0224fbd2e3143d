"""What controllers expect of plugging and unplugging; run on the fake hypervisor and on the real one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from carmel.errors import CarmelError, Refused
from carmel.hypervisor.config import DiskConfig, MachineConfig, NicConfig
from carmel.hypervisor.machine import Hypervisor, Machine
from carmel.resources.virtualmachine import DiskBus


@dataclass(frozen=True)
class Plugs:
    """``config``: a VM with one NIC, ``eth0``, and no disk. ``nic`` and ``disk`` can be plugged into it. ``until_up``
    returns when its guest can let go of devices."""

    config: MachineConfig
    nic: NicConfig
    disk: DiskConfig
    until_up: Callable[[Machine], Awaitable[None]]


async def check_plugs(hypervisor: Hypervisor, successor: Callable[[], Awaitable[Hypervisor]], plugs: Plugs) -> None:
    """``successor`` is the next daemon's hypervisor, which found the VMs of the one before."""
    machine = await hypervisor.launch(plugs.config)
    await plugs.until_up(machine)
    assert (list(machine.nics), list(machine.disks)) == (["eth0"], [])
    # What is on the root bus since the start stays there.
    assert await _code(machine.unplug_nic("eth0")) == "NotPluggable"
    await machine.unplug_nic("never-there")
    await machine.unplug_disk("never-there")
    assert await _code(machine.plug_disk(replace(plugs.disk, bus=DiskBus.SCSI))) == "NotPluggable"
    await _fill(machine, plugs)

    again = (await successor()).machine(plugs.config.uid)
    assert again is not None
    assert (list(again.nics), list(again.disks)) == (["eth0", plugs.nic.name], ["d0", "d2", "d3"])
    assert await _code(again.suspend()) == "DevicesPlugged"
    await again.pause()
    assert await _code(again.unplug_nic(plugs.nic.name)) == "GuestStandsStill"
    await again.resume()
    await again.unplug_nic(plugs.nic.name)
    assert (list(again.nics), list(again.disks)) == (["eth0"], ["d0", "d2", "d3"])
    await again.kill("done")
    assert await _code(again.plug_nic(plugs.nic)) == "MachineNotRunning"


async def _fill(machine: Machine, plugs: Plugs) -> None:
    """All ports are taken, and one by another than at first."""
    for number in range(4):
        await machine.plug_disk(replace(plugs.disk, name=f"d{number}", path=plugs.disk.path.with_name(f"d{number}")))
    assert await _code(machine.plug_disk(replace(plugs.disk, name="d3"))) == "AlreadyPlugged"
    assert await _code(machine.plug_nic(plugs.nic)) == "NoFreePort"
    assert (list(machine.nics), list(machine.disks)) == (["eth0"], ["d0", "d1", "d2", "d3"])
    await machine.unplug_disk("d1")
    await machine.plug_nic(plugs.nic)
    assert await _code(machine.plug_nic(plugs.nic)) == "AlreadyPlugged"
    assert (list(machine.nics), list(machine.disks)) == (["eth0", plugs.nic.name], ["d0", "d2", "d3"])


async def _code(doing: Awaitable[None]) -> str:
    with pytest.raises(CarmelError) as caught:
        await doing
    assert caught.value.message
    assert isinstance(caught.value, Refused) or caught.value.retryable
    return caught.value.code
