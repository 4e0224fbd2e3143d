"""A host of two nodes whose controllers run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from carmel.paths import Paths
from carmel.resources.host import HostSpec
from tests.fakes.clock import FakeClock
from tests.fakes.hypervisor import World
from tests.stores import open_store
from tests.unit.controllers.placement.looking import (
    HOST_KEY,
)
from tests.unit.controllers.placement.machines import NOTHING_KEPT, two_nodes
from tests.unit.controllers.virtualmachine.hosts import Host


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    clock = FakeClock()
    paths = Paths(tmp_path / "s", tmp_path / "r", tmp_path / "c")
    async with open_store(tmp_path) as store:
        made = Host(store, World(paths, clock.now), clock, two_nodes())
        spec = HostSpec.model_validate({"placement": NOTHING_KEPT})
        await made.host_controller.ensure()
        await made.hosts.update(await made.hosts.get(HOST_KEY), lambda one: setattr(one, "spec", spec))
        await made.start()
        yield made
        await made.stop()
