"""The rules in a kernel that tracks connections on bridges: what is let through, what a change ends, and counters."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.contract.connections import ConnectionsContract
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
