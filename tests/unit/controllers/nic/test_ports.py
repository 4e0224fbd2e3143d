"""Ports, networks and the NIC's own object, on a SmartNIC without a kernel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from carmel.controllers.network.hosted import FINALIZER
from carmel.controllers.runtime import Key, find_condition
from carmel.errors import Refused
from carmel.network.dataplane import NetworkPlan, PortCount
from carmel.network.firewall import Connection, PortKey
from carmel.network.host.kernel import Link
from carmel.network.names import port_name
from carmel.resources.core import EVENT
from carmel.resources.firewallpolicy import FIREWALL_POLICY, Action, Direction
from carmel.resources.network import NETWORK
from carmel.resources.port import PORT, DataPlane
from carmel.resources.smartnic import SMART_NIC, FunctionOwner, FunctionState, SmartNICMode, Trust
from tests.stores import open_store
from tests.unit.controllers.nic.world import NAME, SmartNic, mac, message, ready, representor

CMP = [port_name(f"uid-{number}", "eth0") for number in range(3)]


@pytest.fixture
async def nic(tmp_path: Path) -> AsyncIterator[SmartNic]:
    async with open_store(tmp_path) as store:
        made = SmartNic(store)
        await made.start()
        yield made
        await made.stop()
        await made.plane.aclose()


async def test_a_function_is_plugged_into_its_port(nic: SmartNic) -> None:
    await nic.make_network()
    port = await nic.make_port(0)
    assert ready(port) == ("True", "Plugged")
    status = port.status
    assert (status.data_plane, status.smart_nic) == (DataPlane.SMART_NIC, NAME)
    assert (status.function, status.interface, status.mac) == ("pf0vf0", CMP[0], None)
    assert status.addresses == ["10.77.0.10"]
    plan = nic.plane.ports[CMP[0]]
    assert (plan.representor, plan.mac, plan.addresses) == ("pf0vf0", mac(0), (IPv4Address("10.77.0.10"),))


async def test_the_nic_tells_what_it_has_and_who_has_that(nic: SmartNic) -> None:
    shown = await nic.object()
    assert (shown.spec.trust, shown.status.trust) == (Trust.RESTRICTED, Trust.RESTRICTED)
    status = shown.status
    assert (status.model, status.serial, status.mode) == ("emulated", "lab-1", SmartNICMode.DPU)
    assert (status.kernel, status.boot_id) == ("Linux 6.1", "boot-1")
    assert [one.id for one in status.functions or []] == ["pf0vf0", "pf0vf1", "pf0vf2"]
    assert {one.state for one in status.functions or []} == {FunctionState.FREE}
    await nic.make_network()
    await nic.make_port(1)
    second = ((await nic.object()).status.functions or [])[1]
    assert (second.state, second.owner) == (
        FunctionState.PLUGGED,
        FunctionOwner(kind="Port", namespace="default", name="p1"),
    )
    first, plugged = ((await nic.object()).status.representors or [])[:2]
    assert (first.interface, plugged.name, plugged.interface, plugged.up) == ("pf0vf0", "pf0vf1", CMP[1], True)


async def test_its_object_is_made_anew_when_somebody_deletes_it(nic: SmartNic) -> None:
    await nic.store.delete(SMART_NIC, None, NAME)
    assert ready(await nic.object()) == ("True", "Switching")


async def test_a_nic_that_cannot_switch_says_why(nic: SmartNic) -> None:
    await nic.make_network()
    await nic.make_port(0)
    nic.model.problem = "it is in NIC mode"
    shown = await nic.object()
    assert (ready(shown), message(shown)) == (("False", "NotSwitching"), "it is in NIC mode")
    port = await nic.port(0)
    assert (ready(port), message(port)) == (("False", "NoSuchFunction"), "it is in NIC mode")


async def test_what_is_not_plugged_says_why(nic: SmartNic) -> None:
    assert ready(await nic.make_port(0, function=None)) == ("False", "NoFunction")
    port = await nic.make_port(1, function="pf0vf9")
    assert ready(port) == ("False", "NoSuchFunction")
    assert message(port) == "this SmartNIC has no function pf0vf9 (now); it has pf0vf0, pf0vf1, pf0vf2"
    waiting = await nic.make_port(2)
    assert (ready(waiting)[1], message(waiting)) == ("NetworkNotReady", "there is no network lan on this SmartNIC")
    assert nic.plane.ports == {}
    events = [one.json()["reason"] for one in (await nic.store.list(EVENT)).items]
    assert sorted(events) == ["NetworkNotReady", "NoSuchFunction"]


async def test_a_port_is_plugged_once_its_network_is_there(nic: SmartNic) -> None:
    await nic.make_port(0)
    await nic.make_network()
    assert ready(await nic.port(0)) == ("True", "Plugged")


async def test_a_network_that_is_refused_keeps_its_ports_waiting(nic: SmartNic) -> None:
    await nic.make_network(provider="nat", nat={"subnet": "224.0.0.0/24"})
    port = await nic.make_port(0)
    assert ready(port)[1] == "NetworkNotReady"
    assert "the network lan is not ready: the subnet 224.0.0.0/24" in message(port).replace("The", "the")


async def test_networks_of_the_hosts_own_kind_are_not_for_a_nic(nic: SmartNic) -> None:
    await nic.make_network("mine", provider="user")
    network = await nic.networks.get(Key(None, "mine"))
    assert ready(network) == ("False", "NotSupported")
    assert message(network) == "a SmartNIC does not switch networks of provider user: use nat or bridge"


async def test_a_network_of_the_smartnic_as_the_host_calls_it_is_its_own_here(nic: SmartNic) -> None:
    nic.plane.links["p0"] = Link("p0", 2, mac="52:54:00:ca:03:00")
    await nic.make_network(provider="bridge", bridge={"uplinks": ["p0"]}, dataPlane="SmartNIC")
    assert ready(await nic.make_port(0, addresses=None)) == ("True", "Plugged")


async def test_unplugged_and_deleted_it_is_given_back(nic: SmartNic) -> None:
    await nic.make_network()
    await nic.make_port(0)
    await nic.make_port(1)
    port = await nic.set_port(0, function=None)
    assert (ready(port)[1], port.status.interface, port.status.function) == ("NoFunction", None, None)
    await nic.store.delete(PORT, "default", "p1")
    await nic.quiet()
    assert set(nic.plane.links) == {"lo", "pf0vf0", "pf0vf1", "pf0vf2"}
    await nic.store.delete(NETWORK, None, "lan")
    await nic.quiet()
    assert nic.plane.networks == {}


async def test_a_network_goes_even_if_somebody_takes_its_finalizer_away(nic: SmartNic) -> None:
    """As a host that is trusted in full can."""
    await nic.make_network()
    await nic.make_port(0)
    await nic.store.delete(NETWORK, None, "lan")
    network = await nic.networks.get(Key(None, "lan"))
    await nic.networks.remove_finalizer(network, FINALIZER)
    assert ready(await nic.port(0)) == ("False", "NetworkNotReady")
    await nic.clock.advance(10)
    await nic.quiet()
    assert nic.plane.networks == {}
    assert "pf0vf0" in nic.plane.links


async def test_a_port_changes_its_function(nic: SmartNic) -> None:
    await nic.make_network()
    await nic.make_port(0)
    port = await nic.set_port(0, function="pf0vf1")
    assert (ready(port)[0], port.status.function) == ("True", "pf0vf1")
    assert {"pf0vf0", CMP[0]} <= set(nic.plane.links)


async def test_a_change_reaches_the_data_plane(nic: SmartNic) -> None:
    await nic.make_network()
    await nic.make_port(0)
    await nic.set_port(0, limits={"ingress": {"kbps": 1000}}, sourceGuard=False)
    plan = nic.plane.ports[CMP[0]]
    assert (plan.ingress and plan.ingress.kbps, plan.source_guard) == (1000, False)


async def test_a_change_that_is_refused_is_told_and_the_port_goes_on(nic: SmartNic) -> None:
    await nic.make_network()
    await nic.make_port(0)
    await nic.make_port(1)
    port = await nic.set_port(1, addresses=["10.77.0.10"])
    assert ready(port) == ("False", "AddressInUse")
    assert (port.status.interface, port.status.function) == (CMP[1], "pf0vf1")
    assert nic.plane.ports[CMP[1]].addresses == (IPv4Address("10.77.0.11"),)
    assert ready(await nic.set_port(1, addresses=["10.77.0.11"])) == ("True", "Plugged")


async def test_a_function_is_in_the_port_that_had_it_first(nic: SmartNic) -> None:
    await nic.make_network()
    await nic.make_port(1, function="pf0vf0")
    second = await nic.make_port(0)
    assert ready(second) == ("False", "FunctionInUse")
    assert message(second) == "the function pf0vf0 is plugged into the port default/p1"
    await nic.restart()
    assert ready(await nic.port(0)) == ("False", "FunctionInUse")
    await nic.set_port(1, function=None)
    assert ready(await nic.port(0)) == ("True", "Plugged")


async def test_two_ports_for_one_nic_of_one_owner(nic: SmartNic) -> None:
    await nic.make_network()
    await nic.make_port(0)
    second = await nic.make_port(1, owner="uid-0")
    assert (ready(second), message(second)) == (
        ("False", "PortExists"),
        "the port default/p0 is for the same NIC (eth0) of the same owner",
    )
    assert nic.plane.ports[CMP[0]].representor == "pf0vf0"
    await nic.store.delete(PORT, "default", "p0")
    assert ready(await nic.port(1)) == ("True", "Plugged")
    assert nic.plane.ports[CMP[0]].representor == "pf0vf1"


async def test_a_function_goes_and_comes_back(nic: SmartNic) -> None:
    await nic.make_network()
    await nic.make_port(0)
    del nic.plane.links[CMP[0]]
    assert ready(await nic.port(0)) == ("False", "NoSuchFunction")
    assert len((await nic.object()).status.functions or []) == 2
    nic.plane.links["eth7"] = replace(representor(0), name="eth7")
    assert ready(await nic.port(0)) == ("True", "Plugged")
    assert nic.plane.ports[CMP[0]].representor == "eth7"


async def test_the_functions_own_address_counts_where_no_other_can_be_given(nic: SmartNic) -> None:
    await nic.make_network()
    port = await nic.make_port(0, mac="52:54:00:00:aa:00")
    assert (ready(port)[0], port.status.mac) == ("True", mac(0))
    assert nic.plane.ports[CMP[0]].mac == mac(0)
    said = find_condition(port.status, "MacAsWished")
    assert said is not None
    assert (said.status, said.reason) == ("False", "MacNotSettable")
    port = await nic.set_port(0, mac=mac(0))
    assert (port.status.mac, find_condition(port.status, "MacAsWished")) == (None, None)


async def test_a_nic_that_can_gives_the_function_the_ports_address(nic: SmartNic) -> None:
    nic.model.sets_macs = True
    await nic.make_network()
    port = await nic.make_port(0, mac="52:54:00:00:aa:00")
    assert nic.model.macs == {"pf0vf0": "52:54:00:00:aa:00"}
    assert (nic.plane.ports[CMP[0]].mac, port.status.mac) == ("52:54:00:00:aa:00", None)


async def test_a_mirror_waits_for_its_target(nic: SmartNic) -> None:
    await nic.make_network()
    await nic.make_port(0, mirrorTo={"name": "p1"})
    assert nic.plane.ports[CMP[0]].mirror_to is None
    await nic.make_port(1)
    await nic.quiet()
    assert nic.plane.ports[CMP[0]].mirror_to == CMP[1]


async def test_counters_and_addresses_are_written_and_measured(nic: SmartNic) -> None:
    await nic.make_network()
    await nic.make_port(0)
    nic.plane.counts[CMP[0]] = PortCount(1, 100, 2, 200, 3)
    await nic.counting.count()
    status = (await nic.port(0)).status
    assert status.counters is not None
    assert (status.counters.sent_bytes, status.counters.dropped_packets) == (200, 3)
    assert status.counted_at is not None
    version = (await nic.store.get(PORT, "default", "p0")).resource_version
    await nic.counting.count()
    assert (await nic.store.get(PORT, "default", "p0")).resource_version == version
    samples = {one.name: one.value for one in nic.counting.metrics()}
    assert samples["carmel_port_sent_bytes_total"] == 200
    await nic.set_port(0, function=None)
    await nic.counting.count()
    assert list(nic.counting.metrics()) == []
    assert (await nic.port(0)).status.counters is None


async def test_what_was_plugged_stays_while_the_daemon_is_away(nic: SmartNic) -> None:
    await nic.make_network()
    await nic.make_port(0)
    await nic.make_port(1)
    await nic.stop()
    before = dict(nic.plane.links)
    await nic.store.delete(PORT, "default", "p1")
    nic._open()
    await nic.start()
    assert nic.plane.links[CMP[0]] == before[CMP[0]]
    assert set(nic.plane.links) == {"lo", CMP[0], "pf0vf1", "pf0vf2"}


@pytest.mark.parametrize("refused", [False, True])
async def test_what_was_plugged_stays_until_its_network_was_looked_at(nic: SmartNic, *, refused: bool) -> None:
    """Networks take their time at a daemon's start, and ports may be first."""
    await nic.make_network()
    await nic.make_port(0)
    await nic.stop()
    before, looking = dict(nic.plane.links), asyncio.Event()
    ensure = nic.plane.ensure_network

    async def slowly(network: NetworkPlan) -> None:
        await looking.wait()
        if refused:
            raise Refused("somebody else has it", code="NetworksOverlap")
        await ensure(network)

    nic.plane.ensure_network = slowly  # type: ignore[method-assign]
    nic._open()
    await nic.switch.begin()
    await nic.itself.refresh()
    await nic.runtime.start()
    await nic.controller.reconcile(Key("default", "p0"))
    assert nic.plane.links[CMP[0]] == before[CMP[0]]
    looking.set()
    assert ready(await nic.port(0))[1] == ("NetworkNotReady" if refused else "Plugged")
    assert (CMP[0] in nic.plane.links) is not refused


async def test_after_a_power_cut_it_is_plugged_from_the_store_alone(nic: SmartNic) -> None:
    """The network's and the port's status still say that all is well."""
    await nic.make_network()
    await nic.make_port(0)
    await nic.stop()
    nic.plane.networks, nic.plane.ports = {}, {}
    nic.plane.links = {f"pf0vf{number}": representor(number) for number in range(3)}
    nic._open()
    await nic.start()
    assert ready(await nic.port(0)) == ("True", "Plugged")
    assert nic.plane.ports[CMP[0]].representor == "pf0vf0"


async def test_the_firewall_is_in_force_before_the_first_port(nic: SmartNic) -> None:
    assert nic.firewall.loads == 0
    await nic.make_network()
    await nic.make_port(0)
    assert nic.firewall.loads > 0
    assert nic.firewall.loaded is not None
    assert {rules.port.interface for rules in nic.firewall.loaded.ports.values()} == {CMP[0]}


async def test_without_a_firewall_ports_are_plugged_only_while_nobody_wants_one(nic: SmartNic) -> None:
    nic.firewall.broken = Refused("this kernel tracks no connections on bridges", code="NoBridgeTracking")
    await nic.make_network()
    assert ready(await nic.make_port(0)) == ("True", "Plugged")
    policy = {"metadata": {"name": "p", "namespace": "default"}, "spec": {"vmSelector": {}}}
    await nic.store.create(FIREWALL_POLICY, policy)
    assert ready(await nic.port(0)) == ("False", "NoBridgeTracking")
    assert "pf0vf0" in nic.plane.links
    await nic.store.delete(FIREWALL_POLICY, "default", "p")
    assert ready(await nic.port(0)) == ("True", "Plugged")


async def test_a_remote_port_is_a_peer_and_no_more(nic: SmartNic) -> None:
    await nic.make_network()
    await nic.make_port(0)
    port = await nic.make_port(1, remote=True, addresses=["10.9.0.9"])
    assert ready(port) == ("Unknown", "Remote")
    assert (port.status.interface, port.status.data_plane, port.status.addresses) == (None, None, ["10.9.0.9"])
    assert set(nic.plane.ports) == {CMP[0]}
    lan = await nic.networks.get(Key(None, "lan"))
    assert lan.status.ports == 1
    # Its function is free for whoever is here.
    assert ready(await nic.make_port(2, function="pf0vf1")) == ("True", "Plugged")
    # What becomes remote is unplugged, and the reverse.
    port = await nic.set_port(0, remote=True)
    assert (ready(port), set(nic.plane.ports)) == (("Unknown", "Remote"), {CMP[2]})
    port = await nic.set_port(0, remote=False)
    assert (ready(port), set(nic.plane.ports)) == (("True", "Plugged"), {CMP[0], CMP[2]})


async def test_nothing_of_a_remote_port_is_taken_for_plugged_after_a_start(nic: SmartNic) -> None:
    await nic.make_network()
    await nic.make_port(0)
    await nic.stop()
    port = await nic.ports.get(Key("default", "p0"))
    port.spec.remote = True
    stored = port.to_json()
    stored["metadata"].pop("resourceVersion")
    await nic.store.replace(PORT, stored)
    await nic.restart()
    assert ready(await nic.port(0)) == ("Unknown", "Remote")
    assert set(nic.plane.ports) == set()


async def test_policies_on_the_nic_know_remote_ports_as_peers(nic: SmartNic) -> None:
    await nic.make_network()
    await nic.make_port(0)
    labels = {"app": "db"}
    spec = (await nic.make_port(1, remote=True, addresses=["10.9.0.9"])).spec.to_json()
    await nic.store.replace(PORT, {"metadata": {"name": "p1", "namespace": "default", "labels": labels}, "spec": spec})
    policy = {"ingress": [{"peers": [{"vmSelector": {"matchLabels": labels}}]}]}
    await nic.store.create(FIREWALL_POLICY, {"metadata": {"name": "db", "namespace": "default"}, "spec": policy})
    await nic.clock.advance(1)
    await nic.quiet()

    def decided(address: str) -> Action:
        asked = Connection(IPv4Address(address), 6, 443)
        return nic.firewall.connect(PortKey("default", "p0"), Direction.INGRESS, asked).action

    assert (decided("10.9.0.9"), decided("10.9.0.8")) == (Action.ALLOW, Action.DENY)
    moved = {**spec, "addresses": ["10.9.0.8"]}
    await nic.store.replace(PORT, {"metadata": {"name": "p1", "namespace": "default", "labels": labels}, "spec": moved})
    await nic.clock.advance(1)
    await nic.quiet()
    assert (decided("10.9.0.9"), decided("10.9.0.8")) == (Action.DENY, Action.ALLOW)
    # The policy selects all VMs of its namespace, and that one is not here.
    shown = (await nic.store.get(FIREWALL_POLICY, "default", "db")).json()["status"]
    assert (shown["selectedVMs"], shown["ports"]) == (1, 1)


async def test_rules_that_were_put_back_are_told_on_the_networks(nic: SmartNic) -> None:
    await nic.make_network()
    await nic.make_network("other", provider="user")
    nic.plane.put_back("nft (process 7)")
    await nic.quiet()
    events = [one.json() for one in (await nic.store.list(EVENT)).items]
    told = [(one["involvedObject"]["name"], one["message"]) for one in events if one["reason"] == "RulesPutBack"]
    message = "nft (process 7) changed rules of the networks' ports or of nat in the kernel; they were put back"
    assert told == [("lan", message)]
