"""Open vSwitch decides as the ruleset says, frame by frame, and keeps the contract of firewalls."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carmel.network.firewall import Connection, RuleRef, Ruleset, assemble, compile_policy
from carmel.resources.firewallpolicy import Direction, FirewallPolicySpec
from tests.fakes import firewall_contract
from tests.fakes.firewall_contract import CONTRACT, PEER, POLICY, PORT, Subject, comes, rules
from tests.system.network.firewall.test_decisions import _VM, _allowed
from tests.system.network.firewall.wire import first_packet
from tests.system.network.ovs import server
from tests.system.network.ovs.conftest import SettledFirewall
from tests.system.network.ovs.wire import UPLINK, Wire, wire
from tests.unit.network.firewall.worlds import World, connections, worlds

_FORBIDDEN = 1 << 20
_PORTS = [f"vm{number}" for number in range(5)]


class Real:
    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.firewall = wire.firewall
        self._numbers = itertools.count()

    def passes(self, direction: Direction, connection: Connection) -> bool:
        tag = next(self._numbers)
        source, target = (UPLINK, "vm0") if direction is Direction.INGRESS else ("vm0", UPLINK)
        packet = first_packet(connection, PORT.addresses[0], to_vm=direction is Direction.INGRESS, tag=tag)
        self.wire.send(source, packet)
        return tag in self.wire.arrived(source, target)[0]


def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if why := server.missing():
        pytest.skip(why)
    return tmp_path_factory.mktemp("wire")


@pytest.fixture
async def real(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Real]:
    async with wire(_folder(tmp_path_factory), ["vm0"]) as made:
        monkeypatch.setattr(firewall_contract, "PORT", replace(PORT, interface=made.interface("vm0")))
        yield Real(made)


@pytest.mark.parametrize("clause", CONTRACT)
async def test_contract(real: Real, clause: Callable[[Subject], Awaitable[None]]) -> None:
    await clause(real)


async def test_counters_stay_when_another_rule_comes_first(real: Real) -> None:
    await real.firewall.load(rules(80))
    assert comes(real, 80)
    [(_, counted)] = (await real.firewall.counters()).items()
    first = {"action": "Deny", "peers": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}
    spec = FirewallPolicySpec.model_validate({"ingress": [first, {"ports": [{"port": 80}]}]})
    await real.firewall.load(assemble([compile_policy(POLICY, spec)], [firewall_contract.PORT], {}))
    assert await real.firewall.counters() == {RuleRef(POLICY, Direction.INGRESS, 1, None): counted}


async def test_what_an_earlier_daemon_loaded_stays_and_the_next_load_takes_over(real: Real) -> None:
    await real.firewall.load(rules(80))
    # Nothing was said to the old one: it was killed.
    real.firewall = SettledFirewall(real.wire.lab.ovs.switch(), real.wire.lab.ovs)
    await real.firewall.close_unknown()
    assert comes(real, 80)
    assert not comes(real, 81)
    await real.firewall.load(rules(81))
    assert not comes(real, 80)
    assert comes(real, 81)
    await real.firewall._switch.aclose()


async def test_a_port_is_closed_before_the_first_rules_and_after_what_was_open(real: Real) -> None:
    frame = first_packet(Connection(PEER, 6, 80), PORT.addresses[0], to_vm=True, tag=_FORBIDDEN)
    await real.wire.send_and_wait(UPLINK, frame)
    await real.firewall.close_unknown()
    await real.wire.send_and_wait(UPLINK, frame)
    await real.firewall.load(rules(80))
    assert real.wire.arrived(UPLINK, "vm0") == [set()]
    await real.firewall.remove()
    assert comes(real, 81)
    await real.firewall.close_unknown()
    await real.wire.send_and_wait(UPLINK, frame)
    await real.firewall.load(rules(80))
    assert real.wire.arrived(UPLINK, "vm0") == [set()]
    assert comes(real, 80)


async def test_nothing_slips_through_while_rules_change(real: Real) -> None:
    """What no ruleset allows is sent all the time: over changes, whole reloads, and ports that are forgotten."""
    denied, stop = threading.Event(), threading.Event()
    frame = first_packet(Connection(PEER, 6, 22), PORT.addresses[0], to_vm=True, tag=_FORBIDDEN)

    def send() -> None:
        while not stop.is_set():
            real.wire.send(UPLINK, frame)
            denied.set()

    await real.firewall.load(rules(80))
    sender = threading.Thread(target=send)
    sender.start()
    try:
        await asyncio.to_thread(denied.wait)
        for port in range(8000, 8006):
            await real.firewall.load(rules(80, port))
            for ruleset in (Ruleset({}, {}, {}), rules(port)):
                # A daemon that starts knows nothing of what is loaded.
                real.wire.lab.switch.firewall.forget()
                await real.firewall.load(ruleset)
    finally:
        stop.set()
        sender.join()
    real.wire.send(UPLINK, first_packet(Connection(PEER, 6, 8005), PORT.addresses[0], to_vm=True, tag=1))
    assert real.wire.arrived(UPLINK, "vm0") == [{1}]


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as one:
        yield one


@pytest.fixture(scope="module")
def ports(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    opened = wire(_folder(tmp_path_factory), _PORTS)
    made = runner.run(opened.__aenter__())
    yield made
    runner.run(opened.__aexit__(None, None, None))


def _named(wire: Wire, world: World) -> World:
    """With the interfaces that there are."""
    named = [replace(port, interface=wire.interface(name)) for port, name in zip(world.ports, _PORTS, strict=False)]
    return World(world.policies, named)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(worlds, min_size=1, max_size=3), st.lists(connections, min_size=1, max_size=20))
def test_it_decides_as_the_ruleset_says(
    runner: asyncio.Runner, ports: Wire, steps: list[World], asked: list[Connection]
) -> None:
    for plain in steps:
        world = _named(ports, plain)
        ruleset = world.ruleset()
        runner.run(ports.firewall.load(ruleset))
        names = _PORTS[: len(world.ports)]
        runner.run(ports.forget())
        for tag, connection in enumerate(asked):
            ports.send(UPLINK, first_packet(connection, _VM[connection.peer.version], to_vm=True, tag=tag))
        wanted = [_allowed(ruleset, port.key, Direction.INGRESS, asked) for port in world.ports]
        assert ports.arrived(UPLINK, *names) == wanted
        for name, port in zip(names, world.ports, strict=True):
            runner.run(ports.forget())
            for tag, connection in enumerate(asked):
                ports.send(name, first_packet(connection, _VM[connection.peer.version], to_vm=False, tag=tag))
            assert ports.arrived(name, UPLINK) == [_allowed(ruleset, port.key, Direction.EGRESS, asked)]
        # What the ports got of one another's frames.
        ports.arrived(UPLINK, *names)
