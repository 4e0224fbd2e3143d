"""The fake hypervisor keeps the contract of the real one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from carmel.errors import Refused
from carmel.hypervisor.config import CpuConfig, MachineConfig, Pinning
from carmel.paths import Paths
from tests.fakes.hypervisor import FakeHypervisor, World
from tests.fakes.moves_contract import check_moves
from tests.unit.hypervisor.cases import machine


def config(uid: str, pinning: Pinning | None = None) -> MachineConfig:
    return replace(machine(), uid=uid, cpu=CpuConfig(2, 1, 1, 2, 1), pinning=pinning)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(Paths(tmp_path, tmp_path, tmp_path), lambda: datetime.now(UTC))


async def test_contract(world: World) -> None:
    await check_moves(FakeHypervisor(world), lambda pinning: config("a", pinning), config("b"), (0, 1))


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
