"""The kernel's data plane keeps the contract."""

from __future__ import annotations

import pytest

from carmel.network.dataplane import DataPlane
from tests.fakes.dataplane_contract import DataPlaneContract, RepresentorContract
from tests.system.network.host.lab import Lab


class TestHostDataPlane(DataPlaneContract):
    @pytest.fixture
    async def plane(self, lab: Lab) -> DataPlane:
        return lab.plane


class TestRepresentorsOfTheKernel(RepresentorContract):
    """Ends of veth pairs stand for representors, their other ends for the host's functions."""

    @pytest.fixture
    async def plane(self, lab: Lab) -> DataPlane:
        self.lab = lab
        for number in range(3):
            await self.hot_plug(f"pf0vf{number}")
        await lab.host.ip("addr add 192.0.2.1/24 dev pf0vf2")
        return lab.plane

    async def names(self) -> set[str]:
        return await self.lab.interfaces()

    async def hot_unplug(self, name: str) -> None:
        await self.lab.host.ip(f"link delete {name}")

    async def hot_plug(self, name: str) -> None:
        await self.lab.host.ip(f"link add {name} type veth peer name {name}h netns {self.lab.outside.name}")
        await self.lab.outside.ip(f"link set {name}h up")
