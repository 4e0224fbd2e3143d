"""The fake hypervisor keeps the contract of the real one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from carmel.errors import Refused, Unavailable
from carmel.hypervisor.config import CpuConfig, DiskConfig, MachineConfig, NicConfig, Pinning
from carmel.hypervisor.machine import Machine
from carmel.paths import Paths
from carmel.resources.virtualmachine import DiskBus
from tests.fakes.hypervisor import FakeHypervisor, World
from tests.fakes.moves_contract import check_moves
from tests.fakes.plugs_contract import Plugs, check_plugs
from tests.unit.hypervisor.cases import machine


def config(uid: str, pinning: Pinning | None = None) -> MachineConfig:
    return replace(machine(), uid=uid, cpu=CpuConfig(2, 1, 1, 2, 1), pinning=pinning)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(Paths(tmp_path, tmp_path, tmp_path), lambda: datetime.now(UTC))


async def test_contract(world: World) -> None:
    await check_moves(FakeHypervisor(world), lambda pinning: config("a", pinning), config("b"), (0, 1))


async def test_plugs(world: World) -> None:
    hypervisor = FakeHypervisor(world)

    async def successor() -> FakeHypervisor:
        await hypervisor.close()
        following = FakeHypervisor(world)
        await following.adopt()
        return following

    async def up(_machine: Machine) -> None:
        """A guest that is played is up at once."""

    nic = NicConfig("eth0", "52:54:00:00:00:01", {"type": "user"})
    disk = DiskConfig("d", DiskBus.VIRTIO, Path("/images/d"), "qcow2", "d")
    plugs = Plugs(replace(config("a"), nics=(nic,), disks=()), replace(nic, name="eth1"), disk, up)
    await check_plugs(hypervisor, successor, plugs)


async def test_a_guest_that_keeps_a_device_keeps_it(world: World) -> None:
    machine = await FakeHypervisor(world).launch(replace(config("a"), iommu=True, disks=()))
    machine.lets_go = False
    with pytest.raises(Unavailable):
        await machine.unplug_nic("a")
    assert machine.nics == ["a"]
    machine.lets_go = True
    await machine.unplug_nic("a")
    assert machine.nics == []


async def test_a_host_without_cpusets_keeps_nothing_for_anybody(world: World) -> None:
    world.no_dedicated = "it is somebody's laptop"
    hypervisor = FakeHypervisor(world)
    here = Pinning(((0,), (1,)), (0,), (0,))
    with pytest.raises(Refused):
        await hypervisor.launch(config("a", replace(here, exclusive=True)))
    held = await hypervisor.launch(config("a", here))
    with pytest.raises(Refused):
        await held.repin(replace(here, memory_nodes=(1,)))
    assert held.moves == []
