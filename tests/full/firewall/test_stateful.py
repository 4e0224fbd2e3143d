"""The rules in a kernel that tracks connections on bridges: what is let through, what a change ends, and counters."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.connections import ON_B, ConnectionsContract, policy
from tests.system.network.firewall.lab import Lab, lab

# One guest for all: it is emulated, and takes a while to boot.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def booted() -> AsyncIterator[Lab]:
    async with lab() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def here(booted: Lab) -> AsyncIterator[Lab]:
    yield booted
    await booted.unplug_all()


class TestConnections(ConnectionsContract):
    """By nftables' rules."""


async def test_what_is_denied_is_in_the_kernels_log_if_it_is_to_be(here: Lab) -> None:
    for name in "bc":
        await here.plug(name)
    deny = {"name": "no-ping", "action": "Deny", "peers": [{"ipBlock": {"cidr": "10.0.0.3/32"}}]}
    await here.load(web=policy({"vmSelector": ON_B, "ingress": [deny]}))
    assert not await here.pings("c", "10.0.0.2")
    assert "carmel Deny" not in (await here.sh("dmesg")).text
    await here.load(web=policy({"vmSelector": ON_B, "ingress": [{**deny, "log": True}]}))
    assert not await here.pings("c", "10.0.0.2")
    said = (await here.sh("dmesg | grep 'carmel Deny default/web ingress'")).text
    assert "SRC=10.0.0.3 DST=10.0.0.2" in said
