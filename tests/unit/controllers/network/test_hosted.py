"""Networks that the host switches: made, shown, refused with sentences, confirmed, rolled back, removed."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from carmel.controllers.network.controller import NetworkController
from carmel.controllers.network.hosted import FINALIZER
from carmel.controllers.network.hostnetworks import HostNetworks
from carmel.controllers.runtime import Key, Runtime, find_condition
from carmel.errors import Refused
from carmel.network.backends import Backend, Backends
from carmel.network.dataplane import NatPlan, NetworkPlan, PortPlan
from carmel.network.host.kernel import Link
from carmel.network.names import nat_bridge, uplink_bridge
from carmel.resources.base import format_time
from carmel.resources.core import EVENT
from carmel.resources.network import NETWORK, Network, TakeoverPhase
from carmel.resources.port import PORT
from carmel.run import SystemRunner
from carmel.store.sqlite import SqliteStore
from tests.fakes.clock import FakeClock
from tests.fakes.dataplane import FakeDataPlane
from tests.fakes.hostnetworks import FakeClaim, host_networks
from tests.fakes.quiet import quiet
from tests.stores import open_store

NAT = {"provider": "nat", "nat": {"subnet": "10.8.0.0/24"}}
LINKS = (
    Link("lo", 1, loopback=True),
    Link("eth0", 2, addresses=frozenset({IPv4Interface("192.0.2.1/24")})),
    Link("eth1", 3),
)


class Daemon:
    """The controller of networks on a store and a kernel that outlive it."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.clock = FakeClock()
        self.plane = FakeDataPlane(*LINKS, now=self.clock.now)
        self.claim = FakeClaim()
        self._open()

    def _open(self) -> None:
        self.runtime = Runtime(self.store, "test", clock=self.clock)
        self.networks = self.runtime.resources(NETWORK, Network)
        self.host: HostNetworks = host_networks(self.runtime, self.plane, self.claim)
        NetworkController(self.runtime, Backends(SystemRunner(), forced=Backend.SLIRP), self.host)

    async def start(self) -> None:
        await self.host.begin()
        await self.runtime.start()
        await self.quiet()

    async def stop(self) -> None:
        await self.runtime.stop()

    async def restart(self) -> None:
        await self.stop()
        self._open()
        await self.start()

    async def quiet(self) -> None:
        await quiet(self.runtime, self.store)

    async def create(self, name: str, **spec: Any) -> Network:
        await self.store.create(NETWORK, {"metadata": {"name": name}, "spec": spec})
        return await self.get(name)

    async def get(self, name: str) -> Network:
        await self.quiet()
        return await self.networks.get(Key(None, name))

    async def set(self, name: str, **spec: Any) -> Network:
        def change(one: Network) -> None:
            one.spec = one.spec.model_validate({**one.spec.to_json(), **spec})

        await self.networks.update(await self.networks.get(Key(None, name)), change)
        return await self.get(name)


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[Daemon]:
    async with open_store(tmp_path) as store:
        made = Daemon(store)
        await made.start()
        yield made
        await made.stop()


def ready(network: Network) -> tuple[str, str]:
    found = find_condition(network.status, "Ready")
    assert found is not None
    return found.status, found.reason


def message(network: Network) -> str:
    found = find_condition(network.status, "Ready")
    assert found is not None
    return found.message


async def test_a_nat_network_is_made_and_shown(daemon: Daemon) -> None:
    network = await daemon.create("inner", **NAT, mtu=1400)
    assert daemon.plane.networks == {"inner": NetworkPlan("inner", NatPlan(IPv4Network("10.8.0.0/24")), mtu=1400)}
    assert ready(network) == ("True", "Available")
    assert network.metadata.finalizers == [FINALIZER]
    status = network.status
    assert (status.backend, status.interface, status.ports) == ("linux-bridge", nat_bridge("inner"), 0)
    assert status.takeover is None


async def test_a_bridge_is_made_and_shown(daemon: Daemon) -> None:
    network = await daemon.create("lan", provider="bridge", bridge={"uplinks": ["eth1"], "vlan": 7})
    assert ready(network) == ("True", "Available")
    assert network.status.interface == uplink_bridge(("eth1",))


async def test_a_pass_that_finds_nothing_new_writes_nothing(daemon: Daemon) -> None:
    before = await daemon.create("inner", **NAT)
    await daemon.clock.advance(4000)
    assert await daemon.get("inner") == before


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        (NAT, "NetworksOverlap", "the subnet 10.8.0.0/24 overlaps with 10.8.0.0/24 of the network first"),
        ({"provider": "bridge", "bridge": {"uplinks": ["nothere"]}}, "NoSuchUplink", "It has eth0, eth1"),
        ({"provider": "bridge", "bridge": {"uplinks": ["eth0"]}}, "UplinkInUse", "perhaps you the host"),
        ({"provider": "bridge", "bridge": {"uplinks": ["eth1"], "vlan": 1}}, "NetworksOverlap", "the same one"),
    ],
)
async def test_what_cannot_be_is_refused_with_a_sentence(
    daemon: Daemon, spec: dict[str, Any], code: str, words: str
) -> None:
    await daemon.create("first", **NAT)
    await daemon.create("lan", provider="bridge", bridge={"uplinks": ["eth1"]})
    network = await daemon.create("second", **spec)
    assert ready(network) == ("False", code)
    assert words in message(network)
    assert (network.status.backend, network.status.interface) == (None, None)
    assert set(daemon.plane.networks) == {"first", "lan"}
    events = await daemon.store.list(EVENT)
    assert [one.json()["reason"] for one in events.items] == [code]


async def test_what_was_in_the_way_is_gone(daemon: Daemon) -> None:
    first = await daemon.create("first", **NAT)
    assert ready(await daemon.create("second", **NAT)) == ("False", "NetworksOverlap")
    await daemon.networks.delete(first)
    assert ready(await daemon.get("second")) == ("True", "Available")
    assert set(daemon.plane.networks) == {"second"}


async def test_a_refused_change_leaves_what_there_is(daemon: Daemon) -> None:
    await daemon.create("first", **NAT)
    await daemon.create("second", provider="nat", nat={"subnet": "10.9.0.0/24"})
    network = await daemon.set("second", nat={"subnet": "10.8.0.0/16"})
    assert ready(network) == ("False", "NetworksOverlap")
    assert daemon.plane.networks["second"].nat == NatPlan(IPv4Network("10.9.0.0/24"))
    await daemon.restart()
    assert daemon.plane.networks["second"].nat == NatPlan(IPv4Network("10.9.0.0/24"))


async def test_a_network_goes_when_its_ports_have_gone(daemon: Daemon) -> None:
    network = await daemon.create("inner", **NAT)
    address = IPv4Network("10.8.0.0/24")[9]
    port = PortPlan("uid", "eth0", "inner", "52:54:00:00:00:01", addresses=(address,))
    handles = await daemon.plane.attach(port)
    await daemon.networks.delete(network)
    blocked = find_condition((await daemon.get("inner")).status, "Removable")
    assert blocked is not None
    assert blocked.reason == "NetworkInUse"
    _close(handles.taps)
    await daemon.plane.detach(port.interface)
    await daemon.clock.advance(6)
    await daemon.quiet()
    assert await daemon.networks.find(Key(None, "inner")) is None
    assert daemon.plane.networks == {}


async def test_a_network_that_a_smartnic_switches_by_now_is_let_go(daemon: Daemon) -> None:
    await daemon.create("lan", provider="bridge", bridge={"uplinks": ["eth1"]})
    network = await daemon.set("lan", dataPlane="SmartNIC")
    assert daemon.plane.networks == {}
    assert network.metadata.finalizers is None


async def test_a_takeover_waits_is_confirmed_and_stays(daemon: Daemon) -> None:
    spec = {"uplinks": ["eth0"], "takeover": True, "confirmSeconds": 30}
    network = await daemon.create("lan", provider="bridge", bridge=spec)
    assert ready(network) == ("False", "WaitingForConfirmation")
    assert "go back at 2026-11-23T10:00:30Z unless" in message(network)
    assert "carmel network confirm lan" in message(network)
    taken = network.status.takeover
    assert taken is not None
    assert (taken.phase, taken.started_at) == (TakeoverPhase.WAITING, daemon.clock.now())
    # An answer to an earlier one is none.
    stale = await daemon.set("lan", bridge={**spec, "confirmedAt": format_time(daemon.clock.now())})
    assert ready(stale) == ("False", "WaitingForConfirmation")
    await daemon.clock.advance(5)
    network = await daemon.set("lan", bridge={**spec, "confirmedAt": format_time(daemon.clock.now())})
    assert ready(network) == ("True", "Available")
    assert network.status.takeover is not None
    assert network.status.takeover.phase is TakeoverPhase.CONFIRMED


async def test_what_was_rolled_back_is_shown_and_not_tried_again_until_told(daemon: Daemon) -> None:
    spec = {"uplinks": ["eth0"], "takeover": True, "confirmSeconds": 30}
    await daemon.create("lan", provider="bridge", bridge=spec)
    daemon.plane.roll_back("lan")
    await daemon.clock.advance(32)
    network = await daemon.get("lan")
    assert ready(network) == ("False", "RolledBack")
    assert network.status.takeover is not None
    assert network.status.takeover.phase is TakeoverPhase.ROLLED_BACK
    await daemon.restart()
    await daemon.clock.advance(600)
    assert ready(await daemon.get("lan")) == ("False", "RolledBack")
    again = await daemon.set("lan", bridge={**spec, "confirmSeconds": 90})
    assert ready(again) == ("False", "WaitingForConfirmation")


async def test_ports_are_counted(daemon: Daemon) -> None:
    await daemon.create("inner", **NAT)
    spec = {
        "networkRef": {"name": "inner"},
        "vmRef": {"name": "web"},
        "nic": "eth0",
        "owner": "uid",
        "mac": "52:54:00:00:00:01",
    }
    await daemon.store.create(PORT, {"metadata": {"name": "web-eth0", "namespace": "default"}, "spec": spec})
    assert (await daemon.get("inner")).status.ports == 1
    await daemon.store.delete(PORT, "default", "web-eth0")
    assert (await daemon.get("inner")).status.ports == 0


async def test_a_daemon_without_host_networks_touches_nothing(daemon: Daemon) -> None:
    await daemon.create("plain", provider="user")
    assert daemon.claim.taken == 0
    await daemon.restart()
    assert daemon.claim.taken == 0


async def test_what_an_earlier_daemon_made_is_looked_for(daemon: Daemon) -> None:
    await daemon.plane.ensure_network(NetworkPlan("forgotten", NatPlan(IPv4Network("10.8.0.0/24"))))
    daemon.claim.made = True
    await daemon.restart()
    assert daemon.plane.networks == {}


async def test_a_network_of_a_daemon_that_may_have_none_can_be_deleted(daemon: Daemon) -> None:
    network = await daemon.create("inner", **NAT)
    daemon.claim.refusal = Refused("another carmeld has them", code="AnotherDaemon", hint="end that one")
    await daemon.restart()
    assert ready(await daemon.get("inner")) == ("False", "AnotherDaemon")
    await daemon.networks.delete(network)
    await daemon.quiet()
    assert await daemon.networks.find(Key(None, "inner")) is None


def _close(descriptors: tuple[int, ...]) -> None:
    for one in descriptors:
        os.close(one)


async def test_rules_that_were_put_back_are_told_on_the_networks_that_have_some(daemon: Daemon) -> None:
    await daemon.create("inner", **NAT)
    await daemon.create("offloaded", provider="bridge", bridge={"uplinks": ["p0"]}, dataPlane="SmartNIC")
    daemon.plane.put_back("nft (process 7)")
    await daemon.quiet()
    events = [one.json() for one in (await daemon.store.list(EVENT)).items]
    assert [one["involvedObject"]["name"] for one in events if one["reason"] == "RulesPutBack"] == ["inner"]
