"""Rows of the database: what is missing, what is too many, and whose it is."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest

from carmel.errors import Refused
from carmel.network.dataplane import BondMode, NatPlan, NetworkPlan, PortPlan, Rate, UplinkPlan
from carmel.network.host.kernel import KernelState, Link
from carmel.network.names import bond_name, nat_bridge, uplink_bridge
from carmel.network.ovs.layout import as_bridged, meters, outside, plugged, segments
from carmel.network.ovs.rows import (
    SWITCH,
    AddBridge,
    AddPort,
    Bridge,
    Interface,
    Port,
    RemoveBridge,
    RemovePort,
    Seen,
    missing,
    patch_in,
    patch_out,
    too_many,
    wanted_bridges,
)

NAT = NetworkPlan("inner", NatPlan(IPv4Network("10.77.0.0/24")), mtu=1400)
LAN, TEN = (NetworkPlan(name, uplink=UplinkPlan(("up0",), vlan=vlan)) for name, vlan in (("lan", None), ("ten", 10)))
BONDED = NetworkPlan("bonded", uplink=UplinkPlan(("up1", "up2"), BondMode.LACP))
VM = PortPlan("vm", "eth0", "ten", "52:54:00:00:00:01", trunk=(20,), addresses=(IPv4Address("10.0.0.1"),))


def test_ports_are_on_one_bridge_and_each_uplink_has_its_own() -> None:
    switch, lan, bond = wanted_bridges([NAT, LAN, TEN, BONDED], [VM], "system")
    assert [switch.name, switch.secure, lan.secure, bond.secure] == [SWITCH, True, False, False]
    inside = {port.name: port.interfaces[0] for port in switch.ports}
    assert inside == {
        nat_bridge("inner"): Interface(nat_bridge("inner"), "internal", mtu=1400),
        VM.interface: Interface(VM.interface, mtu=1500),
        **{patch_in(m): Interface(patch_in(m), "patch", patch_out(m)) for m in (("up0",), ("up1", "up2"))},
    }
    assert lan.name == uplink_bridge(("up0",))
    assert Port("up0", (Interface("up0"),)) in lan.ports
    members = (Interface("up1"), Interface("up2"))
    assert Port(bond_name(("up1", "up2")), members, "balance-tcp", "active") in bond.ports


def test_nothing_wanted_is_no_bridge_unless_rules_are_loaded() -> None:
    assert wanted_bridges([], [], "system") == ()
    assert wanted_bridges([], [], "system", always=True) == (Bridge(SWITCH, "system", secure=True),)


def test_what_is_there_is_neither_missing_nor_too_many() -> None:
    wanted = wanted_bridges([NAT, LAN, TEN], [VM], "system")
    steps = missing(wanted, Seen())
    assert [step.bridge.name for step in steps if isinstance(step, AddBridge)] == [one.name for one in wanted]
    assert {step.port for step in steps if isinstance(step, AddPort)} == {port for one in wanted for port in one.ports}
    there = Seen({one.name: one for one in wanted})
    assert missing(wanted, there) == too_many(wanted, there) == ()


def test_what_changed_or_was_made_anew_goes_first() -> None:
    before = Seen({one.name: one for one in wanted_bridges([NAT, TEN], [VM], "system")})
    wanted = wanted_bridges([replace(NAT, mtu=1300)], [], "system")
    assert set(too_many(wanted, before)) == {
        RemoveBridge(uplink_bridge(("up0",))),
        RemovePort(SWITCH, patch_in(("up0",))),
        RemovePort(SWITCH, VM.interface),
        RemovePort(SWITCH, nat_bridge("inner")),
    }
    same = wanted_bridges([NAT, TEN], [VM], "system")
    assert too_many(same, before, {VM.interface}) == (RemovePort(SWITCH, VM.interface),)
    other = wanted_bridges([NAT, TEN], [VM], "netdev")
    assert set(too_many(other, before)) == {RemoveBridge(one.name) for one in same}


def test_others_are_left_alone() -> None:
    theirs = Seen({}, {SWITCH: frozenset({"eth7"}), "br-ex": frozenset({"up0"})})
    assert too_many((), theirs) == ()
    with pytest.raises(Refused, match="that Carmel did not make"):
        missing(wanted_bridges([NAT], [], "system"), theirs)


def test_links_are_seen_in_the_bridge_that_has_them() -> None:
    [_, lan, bond] = wanted_bridges([LAN, BONDED], [], "system")
    seen = Seen({lan.name: lan, bond.name: bond}, {"br-ex": frozenset({"eth9"})})
    kernel = KernelState({name: Link(name, 1, master="ovs-system") for name in ("up0", "up1", "eth9", "other")})
    found = {name: link.master for name, link in as_bridged(kernel, seen).links.items()}
    assert found == {
        "up0": uplink_bridge(("up0",)),
        "up1": bond_name(("up1", "up2")),
        "eth9": "br-ex",
        "other": "ovs-system",
    }


def test_segments_keep_their_numbers_and_uplinks_share_them() -> None:
    first = segments([TEN], [VM], {})
    assert len(set(first.values())) == 2
    second = segments([LAN, NAT, TEN], [VM], first)
    assert first.items() <= second.items()
    numbers = {VM.interface: 5, patch_in(("up0",)): 2, nat_bridge("inner"): 3}
    [port] = plugged([LAN, NAT, TEN], [VM], second, Seen(numbers=numbers))
    gateway, uplink = outside([LAN, NAT, TEN], second, Seen(numbers=numbers))
    assert port.access == uplink.tagged[10]
    assert dict(port.tagged) == {20: uplink.tagged[20]}
    assert gateway.access not in uplink.segments
    assert len({uplink.access, *uplink.tagged.values(), gateway.access}) == 4


def test_what_open_vswitch_has_not_opened_waits() -> None:
    numbers = segments([TEN], [VM], {})
    assert plugged([TEN], [VM], numbers, Seen()) == []
    assert outside([TEN], numbers, Seen()) == []
    watched = replace(VM, mirror_to="cmpwatcher")
    [port] = plugged([TEN], [watched], numbers, Seen(numbers={VM.interface: 5}))
    assert port.mirror is None


def test_limits_are_meters_of_the_ports_own_numbers() -> None:
    limited = replace(VM, ingress=Rate(8_000), egress=Rate(1_000, 100))
    ports = plugged([TEN], [limited], segments([TEN], [limited], {}), Seen(numbers={VM.interface: 5}))
    # 20 ms of 8 Mbit/s are less than what may come at once; 100 kB are 800 kbit.
    assert meters(ports) == {10: (8_000, 160), 11: (1_000, 800)}
