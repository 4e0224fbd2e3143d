"""The kernel's data plane keeps the contract."""

from __future__ import annotations

import pytest

from carmel.network.dataplane import DataPlane
from tests.fakes.dataplane_contract import DataPlaneContract
from tests.system.network.host.lab import Lab


class TestHostDataPlane(DataPlaneContract):
    @pytest.fixture
    async def plane(self, lab: Lab) -> DataPlane:
        return lab.plane
