"""Open vSwitch keeps the contract of data planes."""

from __future__ import annotations

import pytest

from carmel.network.dataplane import DataPlane
from tests.fakes.dataplane_contract import DataPlaneContract
from tests.system.network.host import test_contract
from tests.system.network.ovs.conftest import OvsLab


class TestOvsDataPlane(DataPlaneContract):
    @pytest.fixture
    async def plane(self, lab: OvsLab) -> DataPlane:
        return lab.plane


class TestRepresentorsOnOpenVSwitch(test_contract.TestRepresentorsOfTheKernel):
    """With this folder's lab."""
