from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.nic import FakeNic, running_nic
from tests.unit.controllers.offload.world import OffloadWorld, offload_world


@pytest.fixture
async def nic(tmp_path: Path) -> AsyncIterator[FakeNic]:
    async with running_nic(tmp_path) as running:
        yield running


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[OffloadWorld]:
    async with offload_world(tmp_path) as made:
        yield made
