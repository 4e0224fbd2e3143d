"""The flows in the kernel's own datapath: what the one in user space, by which other tests go, does not prove."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from carmel.network.dataplane import Rate
from tests.contract.connections import ConnectionsContract
from tests.full.ovs.lab import Lab, lab

# One guest for all: it is emulated, and takes a while to boot.
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(400)]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def started() -> AsyncIterator[Lab]:
    async with lab() as made:
        for name in "ab":
            await made.plug(name)
        await made.load()
        while not await made.hears():
            await made.load()
        await made.unplug_all()
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def here(started: Lab) -> AsyncIterator[Lab]:
    yield started
    await started.unplug_all()


class TestConnections(ConnectionsContract):
    """By Open vSwitch's flows."""


async def test_what_is_spoofed_does_not_leave(here: Lab) -> None:
    for name in "ab":
        await here.plug(name)
    await here.load()
    assert await here.pings("a", "10.0.0.2")
    await here.sh("/opt/ip -n a addr add 10.0.0.77/24 dev eth0")
    spoofed = "/opt/ip netns exec a ping -c 1 -W 1 -I 10.0.0.77 10.0.0.2"
    assert (await here.sh(spoofed, check=False)).status != 0
    await here.sh("/opt/ip -n a link set eth0 down; /opt/ip -n a link set eth0 address 52:54:00:99:99:99 up")
    assert not await here.pings("a", "10.0.0.2")


async def test_a_limit_is_a_meter_of_the_kernels(here: Lab) -> None:
    await here.plug("a")
    await here.plug("b", ingress=Rate(64, 16))
    await here.load()
    assert "rate=64 burst_size=131" in (await here.sh("ovs-ofctl -O OpenFlow14 dump-meters cmb-ports")).text
    # Sixteen kilobytes pass, and some more while the rest are on their way.
    flood = "/opt/ip netns exec a ping -c 40 -i 0.01 -s 1400 -W 1 10.0.0.2"
    said = (await here.sh(flood, check=False)).text
    received = int(said.partition(" packets transmitted, ")[2].split()[0])
    assert 5 <= received < 40


async def test_a_start_of_vswitchd_loses_flows_and_is_noticed(here: Lab) -> None:
    for name in "ab":
        await here.plug(name)
    await here.load()
    assert await here.pings("a", "10.0.0.2")
    await here.end_switching()
    await here.start_switching()
    assert not await here.switch.network.is_there()
    assert not await here.pings("a", "10.0.0.2")
    await here.settle()
    assert not await here.pings("a", "10.0.0.2")
    await here.load()
    assert await here.pings("a", "10.0.0.2")
