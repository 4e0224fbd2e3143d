"""Plans against a kernel that is a value: they lead there from anywhere, touch nobody else's links, and then rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carmel.network.dataplane import BondMode, NatPlan, NetworkPlan, PortPlan, Rate, UplinkPlan
from carmel.network.host import steps
from carmel.network.host.kernel import KernelState, Link, Shape, Vlan
from carmel.network.host.lending import to_take
from carmel.network.host.plan import bridge_of, plan, removals, shape_of, uplink_link
from carmel.network.names import LINK_GROUP, is_ours, nat_mac

_THEIRS = {
    "lo": Link("lo", 1, loopback=True, up=True),
    "eth0": Link("eth0", 2, mac="02:00:00:00:00:01", up=True, addresses=frozenset({IPv4Interface("192.0.2.1/24")})),
    "eth1": Link("eth1", 3),
    "eth2": Link("eth2", 4),
    "eth3": Link("eth3", 5),
    "virbr0": Link("virbr0", 6, kind="bridge", up=True),
    "cmb0": Link("cmb0", 7, kind="bridge"),
}
_UPLINKS = {"eth1", "eth2", "eth3"}


def do(state: KernelState, step: steps.Step) -> KernelState:  # noqa: C901 - one case a step
    """What the kernel makes of a step."""
    links = dict(state.links)

    def change(name: str, **values: object) -> None:
        links[name] = replace(links[name], **values)  # type: ignore[arg-type]

    def make(name: str, kind: str, **values: object) -> None:
        assert name not in links
        links[name] = Link(name, len(links) + 10, kind=kind, group=LINK_GROUP, **values)  # type: ignore[arg-type]

    match step:
        case steps.MakeBridge(name, alias, mtu, filtering, mac):
            make(name, "bridge", alias=alias, mtu=mtu, vlan_filtering=filtering, mac=mac or "")
        case steps.MakeBond(name, _, mode):
            make(name, "bond", bond_mode=mode.value)
        case steps.MakeShaper(name):
            make(name, "ifb")
        case steps.MarkPort(name):
            change(name, group=LINK_GROUP)
        case steps.SetMtu(name, mtu):
            change(name, mtu=mtu)
        case steps.SetUp(name):
            change(name, up=True)
        case steps.SetMaster(name, master, down_first):
            assert master is None or master in links
            change(name, master=master, vlans=frozenset(), **({"up": False} if down_first else {}))
        case steps.AddAddress(name, address):
            change(name, addresses=links[name].addresses | {address})
        case steps.RemoveAddress(name, address):
            change(name, addresses=links[name].addresses - {address})
        case steps.TakeOver(source, target):
            moved = links[source].addresses
            change(source, addresses=frozenset())
            change(target, addresses=links[target].addresses | moved)
        case steps.AddVlan(name, vlan):
            others = frozenset(
                replace(one, pvid=one.pvid and not vlan.pvid) for one in links[name].vlans if one.vid != vlan.vid
            )
            change(name, vlans=others | {vlan})
        case steps.RemoveVlan(name, vid):
            change(name, vlans=frozenset(one for one in links[name].vlans if one.vid != vid))
        case steps.SetShape(name, shape):
            change(name, shape=None if shape is None else (shape.bytes_per_second, shape.ticks))
        case steps.SetCopies(name, copies):
            assert {copies.redirect, copies.mirror} - {None} <= set(links)
            change(name, copies=copies)
        case steps.Take(name, interface, alias):
            link = links.pop(name)
            assert interface not in links
            links[interface] = replace(link, name=interface, group=LINK_GROUP, alias=alias, up=False)
        case steps.GiveBack(name, own, mtu):
            index, mac = links[name].index, links.pop(name).mac
            assert own not in links
            links[own] = Link(own, index, mac=mac, mtu=mtu)
        case steps.Remove(name):
            del links[name]
            for other in [link.name for link in links.values() if link.master == name]:
                change(other, master=None, vlans=frozenset())
    return KernelState(links)


def run(state: KernelState, some: Iterable[steps.Step]) -> KernelState:
    for step in some:
        state = do(state, step)
    return state


def settle(networks: list[NetworkPlan], ports: list[PortPlan], state: KernelState) -> KernelState:
    state = run(state, removals(networks, ports, state))
    state = run(state, to_take(ports, state))
    return run(state, plan(networks, ports, state))


def tap(state: KernelState, port: PortPlan) -> KernelState:
    return KernelState({**state.links, port.interface: Link(port.interface, 100 + len(state.links), kind="tun")})


_NATS = [NetworkPlan(f"nat{n}", NatPlan(IPv4Network(f"10.{n}.0.0/24")), mtu=mtu) for n, mtu in ((1, 1500), (2, 1400))]
_FLAT = NetworkPlan("flat", uplink=UplinkPlan(("eth1",)))
_TEN = NetworkPlan("ten", uplink=UplinkPlan(("eth1",), vlan=10), mtu=9000)
_BOND = NetworkPlan("bond", uplink=UplinkPlan(("eth2", "eth3"), BondMode.LACP, vlan=20))
_OWN = NetworkPlan("own", uplink=UplinkPlan(("eth0",), takeover=True))

_RATES = st.none() | st.builds(Rate, st.integers(64, 10_000_000), st.none() | st.integers(2, 1000))


@st.composite
def _wishes(draw: st.DrawFn) -> tuple[list[NetworkPlan], list[PortPlan]]:
    networks = draw(st.lists(st.sampled_from([*_NATS, _FLAT, _TEN, _BOND, _OWN]), unique=True))
    ports: list[PortPlan] = []
    for number in range(draw(st.integers(0, 3)) if networks else 0):
        network = draw(st.sampled_from(networks))
        port = PortPlan(f"vm{number}", "eth0", network.name, f"52:54:00:00:00:0{number}")
        port = replace(port, ingress=draw(_RATES), egress=draw(_RATES))
        if network.uplink is not None:
            vids = st.integers(1, 4094)
            port = replace(
                port, vlan=draw(st.none() | vids), trunk=tuple(draw(st.lists(vids, max_size=3, unique=True)))
            )
        if ports:
            port = replace(port, mirror_to=draw(st.none() | st.just(ports[0].interface)))
        ports.append(port)
    return networks, ports


@settings(max_examples=60, deadline=None)
@given(_wishes(), _wishes(), st.integers(0, 40))
def test_from_anywhere_a_plan_leads_there_and_then_rests(
    before: tuple[list[NetworkPlan], list[PortPlan]], after: tuple[list[NetworkPlan], list[PortPlan]], cut: int
) -> None:
    """``before`` was realised up to some step, when the daemon died; its taps live on."""
    state = KernelState(_THEIRS)
    for port in before[1]:
        state = tap(state, port)
    state = run(state, plan(*before, state)[:cut])
    for port in after[1]:
        if port.interface not in state.links:
            state = tap(state, port)
    state = settle(*after, state)
    assert removals(*after, state) == ()
    assert plan(*after, state) == ()


@settings(max_examples=60, deadline=None)
@given(_wishes(), _wishes())
def test_what_is_not_carmels_is_left_alone(
    before: tuple[list[NetworkPlan], list[PortPlan]], after: tuple[list[NetworkPlan], list[PortPlan]]
) -> None:
    state = KernelState(_THEIRS)
    for networks, ports in (before, after):
        for port in ports:
            if port.interface not in state.links:
                state = tap(state, port)
        state = settle(networks, ports, state)
    used = {name for one in (*before[0], *after[0]) if one.uplink is not None for name in one.uplink.members}
    assert {name: state.links[name] for name in _THEIRS if name not in used} == {
        name: link for name, link in _THEIRS.items() if name not in used
    }


@settings(max_examples=60, deadline=None)
@given(_wishes())
def test_in_the_end_nothing_is_left_and_all_is_as_before(wishes: tuple[list[NetworkPlan], list[PortPlan]]) -> None:
    state = KernelState(_THEIRS)
    for port in wishes[1]:
        state = tap(state, port)
    state = settle([], [], settle(*wishes, state))
    assert set(state.links) - {port.interface for port in wishes[1]} == set(_THEIRS)
    assert {name: (one.addresses, one.master, one.mtu) for name, one in state.links.items() if name in _THEIRS} == {
        name: (one.addresses, one.master, one.mtu) for name, one in _THEIRS.items()
    }


@pytest.mark.parametrize("cut", range(8))
def test_an_uplinks_mtu_is_lowered_to_what_it_had(cut: int) -> None:
    """Whenever the daemon died while it was raised, and while it was lowered."""
    had = 1400
    state = KernelState({**_THEIRS, "eth1": replace(_THEIRS["eth1"], mtu=had)})
    state = run(state, plan([_TEN], [], state)[:cut])
    state = settle([_TEN], [], state)
    assert state.links["eth1"].mtu == 9000
    lower = replace(_TEN, mtu=1280)
    state = run(state, plan([lower], [], state)[:cut])
    state = settle([lower], [], state)
    assert (state.links["eth1"].mtu, state.links[bridge_of(_TEN)].mtu) == (had, 1280)
    state = settle([_TEN], [], state)
    state = run(state, removals([], [], state)[:cut])
    assert settle([], [], state).links["eth1"].mtu == had


def test_an_mtu_that_somebody_else_set_stays() -> None:
    state = settle([_TEN], [], KernelState(_THEIRS))
    state = do(state, steps.SetMtu("eth1", 9216))
    assert settle([_FLAT], [], state).links["eth1"].mtu == 9216
    assert settle([], [], state).links["eth1"].mtu == 9216


def test_a_bond_has_what_its_networks_have() -> None:
    raised = replace(_BOND, mtu=9000)
    state = settle([_BOND], [], settle([raised], [], settle([_BOND], [], KernelState(_THEIRS))))
    assert [one.mtu for one in state.links.values() if one.kind == "bond"] == [1500]


def test_networks_on_one_uplink_are_vlans_of_one_bridge() -> None:
    state = settle([_FLAT, _TEN], [], KernelState(_THEIRS))
    bridge = bridge_of(_FLAT)
    assert bridge == bridge_of(_TEN)
    assert state.links[bridge].vlan_filtering
    assert state.links["eth1"].master == bridge
    assert state.links["eth1"].vlans == {Vlan(1, pvid=True, untagged=True), Vlan(10)}
    assert state.links["eth1"].mtu == state.links[bridge].mtu == 9000


def test_a_port_is_in_no_vlan_but_its_own() -> None:
    access = PortPlan("a", "eth0", "ten", "52:54:00:00:00:01")
    other = replace(access, owner="b", vlan=30)
    trunk = replace(access, owner="c", trunk=(10, 40, 50))
    state = KernelState(_THEIRS)
    for port in (access, other, trunk):
        state = tap(state, port)
    links = settle([_TEN], [access, other, trunk], state).links
    assert links[access.interface].vlans == {Vlan(10, pvid=True, untagged=True)}
    assert links[other.interface].vlans == {Vlan(30, pvid=True, untagged=True)}
    assert links[trunk.interface].vlans == {Vlan(10, pvid=True, untagged=True), Vlan(40), Vlan(50)}
    assert {vlan.vid for vlan in links["eth1"].vlans} == {1, 10, 30, 40, 50}


def test_members_of_a_bond_are_down_when_they_join() -> None:
    some = plan([_BOND], [], KernelState(_THEIRS))
    assert [step for step in some if isinstance(step, steps.SetMaster)] == [
        steps.SetMaster("eth2", uplink_link(_BOND.uplink or UplinkPlan(())), down_first=True),
        steps.SetMaster("eth3", uplink_link(_BOND.uplink or UplinkPlan(())), down_first=True),
        steps.SetMaster(uplink_link(_BOND.uplink or UplinkPlan(())), bridge_of(_BOND)),
    ]


def test_what_a_network_is_changed_to_replaces_what_it_was() -> None:
    state = settle([_BOND, _NATS[0]], [], KernelState(_THEIRS))
    bond = replace(_BOND, uplink=UplinkPlan(("eth2", "eth3"), BondMode.ACTIVE_BACKUP, vlan=20))
    moved = replace(_NATS[0], nat=NatPlan(IPv4Network("10.9.0.0/24")))
    links = settle([bond, moved], [], state).links
    assert [link.bond_mode for link in links.values() if link.kind == "bond"] == ["active-backup"]
    assert links[bridge_of(moved)].addresses == {IPv4Interface("10.9.0.1/24")}


def test_a_port_is_limited_before_it_is_up() -> None:
    port = PortPlan("a", "eth0", "nat1", "52:54:00:00:00:01", ingress=Rate(1000), egress=Rate(1000))
    some = plan(_NATS, [port], tap(KernelState(_THEIRS), port))
    up = some.index(steps.SetUp(port.interface))
    assert some.index(steps.SetShape(port.interface, shape_of(Rate(1000)))) < up


def test_names_and_group_together_make_a_link_carmels() -> None:
    assert is_ours(bridge_of(_FLAT), LINK_GROUP)
    assert not is_ours(bridge_of(_FLAT), 0)
    assert not is_ours("eth0", LINK_GROUP)
    assert len(bridge_of(_FLAT)) <= 15


def test_a_burst_is_at_least_what_a_frame_needs_and_else_20_ms() -> None:
    assert shape_of(Rate(1000)) == Shape(125_000, 16 * 1024)
    assert shape_of(Rate(1_000_000)) == Shape(125_000_000, 2_500_000)
    assert shape_of(Rate(1_000_000, 100)) == Shape(125_000_000, 100_000)


def test_a_gateway_keeps_its_mac_address_whoever_is_plugged_in() -> None:
    network = NetworkPlan("inner", NatPlan(IPv4Network("10.8.0.0/24")))
    [made] = [step for step in plan([network], [], KernelState()) if isinstance(step, steps.MakeBridge)]
    assert made.mac == nat_mac("inner")
    assert int(made.mac[:2], 16) & 3 == 2
    assert not made.hosts
    assert nat_mac("other") != made.mac


def test_the_gateway_is_the_first_address() -> None:
    state = settle([_NATS[0]], [], KernelState(_THEIRS))
    assert state.links[bridge_of(_NATS[0])].addresses == {IPv4Interface("10.1.0.1/24")}
    assert _NATS[0].nat is not None
    assert _NATS[0].nat.gateway == IPv4Address("10.1.0.1")
