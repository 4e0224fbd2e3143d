"""nftables fulfils what the fake firewall does; and a new daemon takes over what an old one left."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
from collections.abc import Awaitable, Callable, Iterator

import pytest

from carmel.errors import Refused
from carmel.network.firewall import Connection, NftFirewall, Ruleset
from carmel.network.firewall.nft_tables import NftTables
from carmel.resources.firewallpolicy import Direction
from carmel.run import Command, SystemRunner
from tests.fakes.firewall_contract import CONTRACT, PEER, PORT, Subject, comes, rules
from tests.system.network.firewall.wire import UntrackedTables, Wire, first_packet, marker

_UPLINK = "uplink"
FORBIDDEN = 1 << 20
_TRIES = 3


class Real:
    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._numbers = itertools.count()
        self._opened: list[NftFirewall] = []
        self.firewall = self.another()

    def another(self) -> NftFirewall:
        """As a daemon has it that starts now."""
        self._opened.append(NftFirewall(UntrackedTables(self._wire.namespace)))
        return self._opened[-1]

    def close(self) -> None:
        for one in self._opened:
            one.close()

    def passes(self, direction: Direction, connection: Connection) -> bool:
        assert PORT.interface is not None
        tag = next(self._numbers)
        ways = {Direction.INGRESS: (_UPLINK, PORT.interface), Direction.EGRESS: (PORT.interface, _UPLINK)}
        source, target = ways[direction]
        packet = first_packet(connection, PORT.addresses[0], to_vm=direction is Direction.INGRESS, tag=tag)
        for _ in range(_TRIES):
            self._wire.send(source, packet)
            self._wire.send(source, end := marker(tag))
            # What says that all is there may itself be lost on a busy machine: then nothing is known.
            with contextlib.suppress(TimeoutError):
                return tag in self._wire.received(target, end)
        raise AssertionError(f"nothing arrives at {target}")


@pytest.fixture
def real() -> Iterator[Real]:
    assert PORT.interface is not None
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        with Wire([_UPLINK, PORT.interface]) as wire:
            made = Real(wire)
            yield made
            made.close()
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("clause", CONTRACT)
async def test_contract(real: Real, clause: Callable[[Subject], Awaitable[None]]) -> None:
    await clause(real)


async def test_a_kernel_that_cannot_refuses_and_keeps_nothing(real: Real) -> None:
    firewall = NftFirewall(NftTables(real._wire.namespace))
    refusal = None
    try:
        await firewall.load(rules(80))
    except Refused as error:
        refusal = error.code
    finally:
        firewall.close()
    if refusal is not None:
        assert refusal == "NoBridgeTracking"
        argv = ["nsenter", f"--net={real._wire.namespace}", "--", "nft", "list", "tables"]
        assert (await SystemRunner().run(Command(argv))).text == ""
    else:
        assert comes(real, 80)
        assert not comes(real, 81)


async def test_a_new_daemon_takes_over(real: Real) -> None:
    await real.firewall.load(rules(80))
    # Nothing was said to the old one: it was killed.
    real.firewall = real.another()
    assert comes(real, 80)
    await real.firewall.load(rules(81))
    assert not comes(real, 80)
    assert comes(real, 81)


async def test_counters_go_on_under_a_new_daemon(real: Real) -> None:
    await real.firewall.load(rules(80, 81))
    comes(real, 80)
    counted = await real.firewall.counters()
    real.firewall = real.another()
    await real.firewall.load(rules(80, 82))
    assert await real.firewall.counters() == counted
    comes(real, 80)
    (after,) = (await real.firewall.counters()).values()
    (before,) = counted.values()
    assert (before.packets, after.packets) == (1, 2)


async def test_a_new_daemon_closes_nothing_that_an_old_one_let_through(real: Real) -> None:
    await real.firewall.load(rules(80))
    await real.another().close_unknown()
    assert comes(real, 80)
    assert not comes(real, 81)


async def test_ports_are_closed_before_there_are_rules(real: Real) -> None:
    await real.another().close_unknown()
    frame = first_packet(Connection(PEER, 6, 80), PORT.addresses[0], to_vm=True, tag=FORBIDDEN)
    real._wire.send(_UPLINK, frame)
    await real.firewall.load(rules(80))
    real._wire.send(_UPLINK, end := marker(FORBIDDEN))
    assert PORT.interface is not None
    assert real._wire.received(PORT.interface, end) == set()


@pytest.mark.parametrize(
    "by_others",
    [
        "flush ruleset",
        "flush chain bridge carmel-firewall to-port",
        "insert rule bridge carmel-firewall postrouting accept",
        "delete element bridge carmel-firewall ports { cmp0 }",
    ],
)
async def test_what_others_change_is_told_at_once(real: Real, by_others: str) -> None:
    told: asyncio.Queue[str | None] = asyncio.Queue()
    real.firewall.watch(told.put_nowait)
    await real.firewall.load(rules(80))
    await real.firewall.load(rules(80, 81))
    # So many that the daemon does not listen while it loads them.
    await real.firewall.load(rules(*range(1, 3001)))
    await real.firewall.load(rules(80))
    namespace = f"--net={real._wire.namespace}"
    for elsewhere in ("add table inet other", "delete table inet other"):
        await SystemRunner().run(Command(["nsenter", namespace, "--", "nft", elsewhere]))
    await SystemRunner().run(Command(["nsenter", namespace, "--", "nft", by_others]))
    who = await asyncio.wait_for(told.get(), 20)
    assert who is not None
    assert who.startswith("nft (process ")
    # Nothing was told of our own changes, nor of other tables.
    assert told.empty()
    await real.firewall.load(rules(80))
    assert comes(real, 80)
    assert not comes(real, 81)


async def test_nothing_slips_through_while_rules_change(real: Real) -> None:
    """What no ruleset allows is sent all the time: over changes, whole reloads, and ports that are forgotten."""
    denied, stop = threading.Event(), threading.Event()
    frame = first_packet(Connection(PEER, 6, 22), PORT.addresses[0], to_vm=True, tag=FORBIDDEN)

    def send() -> None:
        while not stop.is_set():
            real._wire.send(_UPLINK, frame)
            denied.set()

    await real.firewall.load(rules(80))
    sender = threading.Thread(target=send)
    sender.start()
    try:
        await asyncio.to_thread(denied.wait)
        for port in range(8000, 8010):
            # Some rules more and others fewer, a port and its VM's address, everything anew.
            await real.firewall.load(rules(80, port))
            await real.firewall.load(rules(80, *range(port, port + 300)))
            await real.firewall.load(rules(port, vms=2))
            await real.firewall.load(rules(port))
            await real.another().load(Ruleset({}, {}, {}))
            real.firewall = real.another()
            await real.firewall.load(rules(port))
    finally:
        stop.set()
        sender.join()
    assert PORT.interface is not None
    real._wire.send(_UPLINK, first_packet(Connection(PEER, 6, 8009), PORT.addresses[0], to_vm=True, tag=1))
    real._wire.send(_UPLINK, end := marker(FORBIDDEN))
    assert real._wire.received(PORT.interface, end) == {1}
