"""The fake data plane keeps the contract of the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from carmel.network.dataplane import DataPlane
from carmel.network.host.kernel import Link
from tests.fakes.dataplane import FakeDataPlane
from tests.fakes.dataplane_contract import DataPlaneContract


class TestFakeDataPlane(DataPlaneContract):
    @pytest.fixture
    async def plane(self) -> AsyncIterator[DataPlane]:
        plane = FakeDataPlane(Link("lo", 1, loopback=True))
        yield plane
        await plane.aclose()
