"""The fake data plane keeps the contract of the real one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import IPv4Interface

import pytest

from carmel.network.dataplane import DataPlane
from carmel.network.host.kernel import Link
from tests.fakes.dataplane import FakeDataPlane
from tests.fakes.dataplane_contract import DataPlaneContract, RepresentorContract


class TestFakeDataPlane(DataPlaneContract):
    @pytest.fixture
    async def plane(self) -> AsyncIterator[DataPlane]:
        plane = FakeDataPlane(Link("lo", 1, loopback=True))
        yield plane
        await plane.aclose()


class TestRepresentorsOfTheFake(RepresentorContract):
    @pytest.fixture
    async def plane(self) -> AsyncIterator[DataPlane]:
        address = frozenset({IPv4Interface("192.0.2.1/24")})
        self.fake = FakeDataPlane(
            Link("lo", 1, loopback=True),
            Link("pf0vf0", 2),
            Link("pf0vf1", 3),
            Link("pf0vf2", 4, addresses=address),
        )
        yield self.fake
        await self.fake.aclose()

    async def names(self) -> set[str]:
        return set(self.fake.links)

    async def hot_unplug(self, name: str) -> None:
        del self.fake.links[name]

    async def hot_plug(self, name: str) -> None:
        self.fake.links[name] = Link(name, 9)
