"""What contradicts itself, another network or the machine gets a sentence and a code."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

import pytest

from carmel.errors import Refused
from carmel.network.dataplane import BondMode, NatPlan, NetworkPlan, PortPlan, Rate, UplinkPlan
from carmel.network.host.check import check_network, check_port
from carmel.network.host.kernel import KernelState, Link
from carmel.network.host.nat import nat_script
from carmel.network.host.plan import bridge_of

_HOST = frozenset({IPv4Interface("192.0.2.1/24")})
_KERNEL = KernelState(
    {
        link.name: link
        for link in (
            Link("lo", 1, loopback=True),
            Link("eth0", 2, addresses=_HOST),
            Link("eth1", 3),
            Link("eth2", 4, master="bond0"),
            Link("br0", 5, kind="bridge"),
        )
    }
)
_LAN = NetworkPlan("lan", uplink=UplinkPlan(("eth1",), vlan=10))
_PORT = PortPlan("vm", "eth0", "lan", "52:54:00:00:00:01")


@pytest.mark.parametrize(
    ("uplink", "code", "words"),
    [
        (UplinkPlan(("eth9",)), "NoSuchUplink", "this host has no interface eth9"),
        (UplinkPlan(("lo",)), "InvalidUplink", "leads nowhere"),
        (UplinkPlan(("br0",)), "InvalidUplink", "leads nowhere"),
        (UplinkPlan(("eth2",)), "UplinkInUse", "is a part of bond0 already"),
        (UplinkPlan(("eth0",)), "UplinkInUse", "perhaps you the host"),
        (UplinkPlan(("eth0", "eth1"), BondMode.LACP, takeover=True), "UplinkInUse", "a new bond cannot take over"),
        (UplinkPlan(()), "InvalidUplink", "bond mode"),
        (UplinkPlan(("eth1", "eth2")), "InvalidUplink", "bond mode"),
        (UplinkPlan(("eth1", "eth1"), BondMode.LACP), "InvalidUplink", "named twice"),
        (UplinkPlan(("eth1",), vlan=0), "InvalidVlan", "no VLAN 0"),
        (UplinkPlan(("eth1",), vlan=4095), "InvalidVlan", "no VLAN 4095"),
        (UplinkPlan(("eth1",), vlan=10), "NetworksOverlap", "the same uplink and VLAN"),
        (UplinkPlan(("eth1",), takeover=True), "UplinkInUse", "another bond mode or takeover"),
        (UplinkPlan(("eth1", "eth3"), BondMode.LACP), "NoSuchUplink", "no interface eth3"),
    ],
)
def test_uplinks(uplink: UplinkPlan, code: str, words: str) -> None:
    with pytest.raises(Refused, match=words) as refused:
        check_network(NetworkPlan("new", uplink=uplink), [_LAN], _KERNEL)
    assert refused.value.code == code


def test_uplinks_that_are_fine() -> None:
    check_network(_LAN, [_LAN], _KERNEL)
    check_network(NetworkPlan("new", uplink=UplinkPlan(("eth1",), vlan=11)), [_LAN], _KERNEL)
    check_network(NetworkPlan("new", uplink=UplinkPlan(("eth0",), takeover=True)), [_LAN], _KERNEL)


def test_a_bridge_that_holds_the_hosts_addresses_is_not_made_an_ordinary_one() -> None:
    taken = NetworkPlan("lan", uplink=UplinkPlan(("eth0",), takeover=True))
    name = bridge_of(taken)
    kernel = KernelState({**_KERNEL.links, "eth0": Link("eth0", 2), name: Link(name, 9, "bridge", addresses=_HOST)})
    check_network(taken, [taken], kernel)
    with pytest.raises(Refused, match="has the host's addresses"):
        check_network(NetworkPlan("lan", uplink=UplinkPlan(("eth0",))), [taken], kernel)


@pytest.mark.parametrize("subnet", ["127.0.0.0/24", "169.254.0.0/24", "240.0.0.0/24", "10.0.0.0/15", "10.0.0.0/30"])
def test_subnets_that_are_none(subnet: str) -> None:
    with pytest.raises(Refused) as refused:
        check_network(NetworkPlan("new", NatPlan(IPv4Network(subnet))), [], _KERNEL)
    assert refused.value.code == "InvalidSubnet"


def test_a_network_is_of_one_sort() -> None:
    for network in (NetworkPlan("new"), replace(_LAN, nat=NatPlan(IPv4Network("10.0.0.0/24")))):
        with pytest.raises(Refused, match="and not both"):
            check_network(network, [], _KERNEL)


@pytest.mark.parametrize("kbps", [0, 7, 40_000_000])
def test_limits_that_no_bucket_holds(kbps: int) -> None:
    with pytest.raises(Refused) as refused:
        check_port(replace(_PORT, ingress=Rate(kbps)), _LAN, [])
    assert refused.value.code == "InvalidLimit"


def test_a_mac_may_be_used_again_in_another_network_but_not_in_one() -> None:
    other = replace(_PORT, owner="other", addresses=(IPv4Address("10.0.0.1"),))
    check_port(_PORT, _LAN, [_PORT, replace(other, network="elsewhere")])
    with pytest.raises(Refused) as refused:
        check_port(_PORT, _LAN, [other])
    assert refused.value.code == "MacInUse"


def test_masquerading_is_loaded_once_and_goes_with_the_last_network() -> None:
    network = NetworkPlan("inner", NatPlan(IPv4Network("10.0.0.0/24")))
    script = nat_script([network], None)
    stamp = next(line.split()[-1] for line in script.splitlines() if "made-of" in line)
    table: list[dict[str, Any]] = [{"chain": {"name": stamp}}, *({"rule": {}} for _ in range(3))]
    assert nat_script([network], table) == ""
    assert nat_script([network], table[:-1]) == script
    assert nat_script([replace(network, nat=NatPlan(IPv4Network("10.1.0.0/24")))], table) != ""
    assert nat_script([_LAN], table) == "delete table ip carmel-nat\n"
    assert nat_script([_LAN], None) == ""
