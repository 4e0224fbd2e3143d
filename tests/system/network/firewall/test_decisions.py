"""The kernel decides as the ruleset says, for random policies and packets, and after random changes of them."""

from __future__ import annotations

import asyncio
import ipaddress
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carmel.network.firewall import Connection, NftFirewall, PortKey, Ruleset, decide
from carmel.resources.firewallpolicy import Action, Direction
from tests.system.network.firewall.wire import UntrackedTables, Wire, first_packet, marker
from tests.unit.network.firewall.worlds import World, connections, worlds

_VM = {4: ipaddress.ip_address("10.77.0.1"), 6: ipaddress.ip_address("fd77::1")}
_UPLINK = "uplink"


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """Frames arrive in the order in which they are sent while all are sent from one CPU."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        with Wire([_UPLINK, *(f"cmp{number}" for number in range(5))]) as made:
            yield made
    finally:
        os.sched_setaffinity(0, before)


def _numbered(world: World) -> World:
    """With the interfaces that there are."""
    ports = [
        type(port)(port.key, port.vm, port.labels, port.addresses, f"cmp{number}")
        for number, port in enumerate(world.ports)
    ]
    return World(world.policies, ports)


def _allowed(ruleset: Ruleset, port: PortKey, direction: Direction, asked: list[Connection]) -> set[int]:
    return {
        tag
        for tag, connection in enumerate(asked)
        if decide(ruleset, port, direction, connection).action is Action.ALLOW
    }


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(worlds.map(_numbered), min_size=1, max_size=3), st.lists(connections, min_size=1, max_size=20))
def test_the_kernel_decides_as_the_ruleset_says(wire: Wire, steps: list[World], asked: list[Connection]) -> None:
    firewall = NftFirewall(UntrackedTables(wire.namespace))
    for number, world in enumerate(steps):
        ruleset = world.ruleset()
        asyncio.run(firewall.load(ruleset))
        for tag, connection in enumerate(asked):
            wire.send(_UPLINK, first_packet(connection, _VM[connection.peer.version], to_vm=True, tag=tag))
        wire.send(_UPLINK, end := marker(2 * number))
        for port in world.ports:
            assert port.interface is not None
            arrived = wire.received(port.interface, end)
            assert arrived == _allowed(ruleset, port.key, Direction.INGRESS, asked)
        for port in world.ports:
            assert port.interface is not None
            for tag, connection in enumerate(asked):
                packet = first_packet(connection, _VM[connection.peer.version], to_vm=False, tag=tag)
                wire.send(port.interface, packet)
            wire.send(port.interface, end := marker(2 * number + 1))
            assert wire.received(_UPLINK, end) == _allowed(ruleset, port.key, Direction.EGRESS, asked)
        _drain(wire, world)
    asyncio.run(firewall.remove())
    firewall.close()


def _drain(wire: Wire, world: World) -> None:
    """What the ports got of one another's frames."""
    wire.send(_UPLINK, end := marker(1 << 20))
    for port in world.ports:
        assert port.interface is not None
        wire.received(port.interface, end)
