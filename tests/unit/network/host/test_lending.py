"""Representors against a kernel that is a value: taken for ports, given back as they were, never removed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Interface, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carmel.errors import Refused
from carmel.network.dataplane import NatPlan, NetworkPlan, PortPlan, Rate, UplinkPlan
from carmel.network.host.kernel import KernelState, Lent, Link
from carmel.network.host.lending import check_representor, to_take
from carmel.network.host.plan import plan, removals
from carmel.network.names import LINK_GROUP
from tests.unit.network.host.test_plan import run, settle

_FREE = {f"pf0vf{n}": Link(f"pf0vf{n}", 20 + n, mac=f"52:54:00:ca:02:0{n}", mtu=1400 + n) for n in range(3)}
_MACHINE = {"lo": Link("lo", 1, loopback=True, up=True), "p0": Link("p0", 2, up=True), **_FREE}
_NETWORKS = [NetworkPlan("inner", NatPlan(IPv4Network("10.1.0.0/24"))), NetworkPlan("out", uplink=UplinkPlan(("p0",)))]


@st.composite
def _ports(draw: st.DrawFn) -> list[PortPlan]:
    """Each representor in one port at most."""
    functions = draw(st.permutations(sorted(_FREE)))
    ports = []
    for number in range(draw(st.integers(0, 3))):
        network = draw(st.sampled_from(_NETWORKS)).name
        port = PortPlan(f"vm{number}", "eth0", network, f"52:54:00:00:00:0{number}", representor=functions[number])
        if network == "out":
            port = replace(port, vlan=draw(st.none() | st.integers(1, 4094)))
        rates = st.none() | st.just(Rate(1000))
        ports.append(replace(port, ingress=draw(rates), egress=draw(rates)))
    return ports


@settings(max_examples=80, deadline=None)
@given(_ports(), _ports(), st.integers(0, 40))
def test_from_anywhere_each_representor_is_plugged_where_it_is_wanted_or_itself_again(
    before: list[PortPlan], after: list[PortPlan], cut: int
) -> None:
    """``before`` was realised up to some step, when the daemon died."""
    state = KernelState(_MACHINE)
    state = run(state, to_take(before, state)[:cut])
    state = run(state, plan(_NETWORKS, before, state)[: max(0, cut - len(before))])
    state = settle(_NETWORKS, after, state)
    for port in after:
        link = state.links[port.interface]
        assert port.representor is not None
        assert link.lent == Lent(port.representor, _FREE[port.representor].mtu)
        assert (link.up, link.master is not None, link.index) == (True, True, _FREE[port.representor].index)
    unwanted = set(_FREE) - {port.representor for port in after}
    for name in unwanted:
        assert state.links[name] == _FREE[name]
    assert len(state.links) == len({link.index for link in state.links.values()})
    assert removals(_NETWORKS, after, state) == to_take(after, state) == plan(_NETWORKS, after, state) == ()
    assert {name: run(state, removals([], [], state)).links[name] for name in _FREE} == _FREE


def test_what_was_lent_is_known_by_its_name_its_group_and_its_alias() -> None:
    alias = Lent("enp3s0f0npf0vf3", 9000).alias("6f0c-uid", "eth 0, lent by x mtu 1")
    link = Link("cmp0123456789", 5, group=LINK_GROUP, alias=alias)
    assert link.lent == Lent("enp3s0f0npf0vf3", 9000)
    for other in (replace(link, group=0), replace(link, name="pf0vf3"), replace(link, alias="carmel port a b")):
        assert other.lent is None


@pytest.mark.parametrize(
    ("link", "code", "said"),
    [
        (Link("pf0vf0", 5, master="br0"), "RepresentorInUse", "is a part of br0"),
        (
            Link("pf0vf0", 5, addresses=frozenset({IPv4Interface("192.0.2.1/24")})),
            "RepresentorInUse",
            "has addresses of this machine",
        ),
        (Link("pf0vf0", 5, kind="bridge"), "NoSuchRepresentor", "is no representor"),
        (Link("pf0vf0", 5, loopback=True), "NoSuchRepresentor", "is no representor"),
        (Link("eth0", 5), "NoSuchRepresentor", "there is no interface pf0vf0"),
        (
            Link("cmpother", 5, group=LINK_GROUP, alias=Lent("pf0vf0", 1500).alias("vm", "eth0")),
            "RepresentorInUse",
            "another port (cmpother)",
        ),
    ],
)
def test_what_cannot_be_plugged_is_told_and_left_alone(link: Link, code: str, said: str) -> None:
    port = PortPlan("vm", "eth0", "inner", "52:54:00:00:00:01", representor="pf0vf0")
    state = KernelState({link.name: link})
    with pytest.raises(Refused) as refused:
        check_representor(port, state)
    assert refused.value.code == code
    assert said in refused.value.message
    assert to_take([port], state) == ()
