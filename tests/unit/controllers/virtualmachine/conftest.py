"""A host whose hypervisor is in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from carmel.paths import Paths
from tests.fakes.clock import FakeClock
from tests.fakes.hypervisor import World
from tests.stores import open_store
from tests.unit.controllers.virtualmachine.hosts import Host


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    clock = FakeClock()
    paths = Paths(tmp_path / "s", tmp_path / "r", tmp_path / "c")
    async with open_store(tmp_path) as store:
        made = Host(store, World(paths, clock.now), clock)
        await made.start()
        yield made
        await made.stop()
