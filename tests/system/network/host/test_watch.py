"""What another program changes in the data plane's filters, or in its masquerading, is put back at once."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import replace

import pytest

from carmel.network.firewall.nft_attributes import BRIDGE, IPV4
from carmel.network.firewall.nft_watch import NftWatch
from tests.system.network.host.lab import Lab, nat, port

_ELSEWHERE = ("add table inet other", "delete table inet other")


async def rules(lab: Lab) -> list[str]:
    """The words of ours, without what was counted or learned: what has no order is listed in any."""
    listed = (await lab.host.run("nft", "--stateless", "list", "ruleset")).text
    return sorted(re.split(r"[\s,]+", re.sub(r"\n\t\telements = [^}]*timeout[^}]*}", "", listed)))


@pytest.mark.parametrize(
    "by_others",
    [
        "flush ruleset",
        "delete table ip carmel-nat",
        "flush chain ip carmel-nat postrouting",
        "flush chain ip carmel-nat forward; " + 2 * "add rule ip carmel-nat forward accept; ",
        "delete table bridge carmel-guard",
        "insert rule bridge carmel-guard prerouting accept",
        "flush map bridge carmel-guard ports",
    ],
)
async def test_it_is_put_back_and_told_by_whom(lab: Lab, by_others: str) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    lab.plane.watch(told.put_nowait)
    network = nat()
    await lab.plane.ensure_network(network)
    vm = await lab.boot(port("one", network))
    await lab.plug(port("two", network))
    before = await rules(lab)
    assert "carmel-nat" in before
    assert "carmel-guard" in before
    for elsewhere in _ELSEWHERE:
        await lab.host.run("nft", elsewhere)
    await lab.host.run("nft", by_others)
    who = await asyncio.wait_for(told.get(), 20)
    assert who.startswith("nft (process ")
    assert await rules(lab) == before
    # What comes later is by the rules that are there.
    await lab.plane.update(replace(vm.port, source_guard=False))
    assert await vm.dhcp() == vm.port.addresses[0]
    # Of our own changes, and of other tables, nothing was told.
    assert told.empty()


async def test_own_changes_are_not_put_back(lab: Lab) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    lab.plane.watch(told.put_nowait)
    networks = nat(), nat("second", type(nat().nat.subnet)("10.78.0.0/24"))  # type: ignore[union-attr]
    for network in networks:
        await lab.plane.ensure_network(network)
    one = port("one", networks[0])
    await lab.plug(one)
    await lab.plane.update(replace(one, source_guard=False))
    await lab.plane.detach(one.interface)
    for network in networks:
        await lab.plane.remove_network(network.name)
    # The kernel tells in order: this came last.
    await lab.plane.ensure_network(networks[0])
    await lab.host.run("nft", "flush", "ruleset")
    assert (await asyncio.wait_for(told.get(), 20)).startswith("nft (process ")
    assert told.empty()


async def test_one_watch_tells_each_of_its_own_table(lab: Lab) -> None:
    async def nft(script: str) -> None:
        await lab.host.run("nft", script)

    one, two, watch = (BRIDGE, "one"), (IPV4, "two"), NftWatch(lab.host.path)
    of_one, of_two = asyncio.Queue[str | None](), asyncio.Queue[str | None]()
    await watch.follow(one, of_one.put_nowait)
    await watch.follow(two, of_two.put_nowait)
    try:
        await nft("add table ip two")
        assert (await asyncio.wait_for(of_two.get(), 20) or "").startswith("nft (process ")
        with watch.our_program(two):
            await nft("add chain ip two first")
        with watch.looking_away():
            await nft("add table bridge one")
        assert of_one.empty()
        assert of_two.empty()
        with watch.our_program(two):
            await nft("add chain ip two second")
            await nft("delete chain ip two first")
        assert of_two.get_nowait() == "another program"
        with contextlib.suppress(ValueError), watch.our_program(two):
            await nft("add chain ip two third")
            raise ValueError
        assert of_two.get_nowait() == "another program"
        watch.missed()
        assert (of_one.get_nowait(), of_two.get_nowait()) == (None, None)
        await nft("flush ruleset")
        for queue in (of_one, of_two):
            assert (await asyncio.wait_for(queue.get(), 20) or "").startswith("nft (process ")
        watch.forget(one)
        await nft("add table bridge one; add table ip two")
        await asyncio.wait_for(of_two.get(), 20)
        assert of_one.empty()
    finally:
        watch.close()


async def test_what_was_missed_is_looked_for(lab: Lab) -> None:
    """More changes than are kept for this process: what there is stays, what is missing comes back."""
    network = nat()
    await lab.plane.ensure_network(network)
    await lab.plug(port("one", network))
    before = await rules(lab)
    with lab.plane._watch.looking_away():
        await lab.host.run("nft", "delete table ip carmel-nat")
        await lab.host.run("nft", "add rule bridge carmel-guard prerouting counter")
    lab.plane._watch.missed()
    assert lab.plane._mending is not None
    await asyncio.wait_for(lab.plane._mending, 20)
    # A rule more in a table that is there is not seen.
    assert [word for word in await rules(lab) if word != "counter"] == [word for word in before if word != "counter"]
