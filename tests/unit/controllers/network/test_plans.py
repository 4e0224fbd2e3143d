"""Networks and Ports become plans: everything that was asked for is in them, and nothing else."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

import pytest

from carmel.controllers.network.plans import interface_of, network_plan, port_plan
from carmel.errors import CarmelError
from carmel.network.dataplane import BondMode, NatPlan, NetworkPlan, PortPlan, Rate, UplinkPlan
from carmel.resources.base import ObjectMeta
from carmel.resources.network import Network, NetworkSpec
from carmel.resources.port import Port, PortSpec


def network(**spec: Any) -> Network:
    return Network(metadata=ObjectMeta(name="net"), spec=NetworkSpec.model_validate(spec))


def port(**spec: Any) -> Port:
    needed = {
        "networkRef": {"name": "net"},
        "vmRef": {"name": "web"},
        "nic": "eth0",
        "owner": "uid",
        "mac": "52:54:00:00:00:01",
    }
    return Port(metadata=ObjectMeta(name="web-eth0"), spec=PortSpec.model_validate({**needed, **spec}))


def test_nat() -> None:
    wanted = network(provider="nat", nat={"subnet": "10.8.0.0/24"}, mtu=1400)
    assert network_plan(wanted) == NetworkPlan("net", nat=NatPlan(IPv4Network("10.8.0.0/24")), mtu=1400)
    silent = network(provider="nat", nat={"subnet": "10.8.0.0/24", "dhcp": False})
    assert network_plan(silent).nat == NatPlan(IPv4Network("10.8.0.0/24"), dhcp=False)


def test_bridge() -> None:
    plain = network(provider="bridge", bridge={"uplinks": ["eth0"]})
    assert network_plan(plain) == NetworkPlan("net", uplink=UplinkPlan(("eth0",)), mtu=1500)
    full = network(
        provider="bridge",
        bridge={"uplinks": ["a", "b"], "bond": "802.3ad", "vlan": 7, "confirmSeconds": 9},
    )
    assert network_plan(full).uplink == UplinkPlan(("a", "b"), BondMode.LACP, 7, confirm_seconds=9)
    taken = network(provider="bridge", bridge={"uplinks": ["a"], "takeover": True})
    assert network_plan(taken).uplink == UplinkPlan(("a",), takeover=True)


@pytest.mark.parametrize("provider", ["user", "cable"])
def test_what_no_data_plane_realises(provider: str) -> None:
    with pytest.raises(CarmelError) as caught:
        network_plan(network(provider=provider))
    assert caught.value.code == "NotSupported"


def test_port() -> None:
    assert port_plan(port()) == PortPlan("uid", "eth0", "net", "52:54:00:00:00:01")
    mirror = port(owner="other")
    full = port(
        mac="52:54:00:00:00:0A",
        vlan=5,
        trunk=[9, 7, 9],
        addresses=["10.0.0.7", "fd00:0::7"],
        sourceGuard=False,
        limits={"ingress": {"kbps": 1000}, "egress": {"kbps": 500, "burstKb": 20}},
    )
    plan = port_plan(full, mirror=mirror, representor="pf0vf3")
    assert plan == PortPlan(
        "uid",
        "eth0",
        "net",
        "52:54:00:00:00:0a",
        vlan=5,
        trunk=(7, 9),
        addresses=(IPv4Address("10.0.0.7"), IPv6Address("fd00::7")),
        source_guard=False,
        ingress=Rate(1000),
        egress=Rate(500, 20),
        mirror_to=interface_of(mirror),
        representor="pf0vf3",
    )
    assert plan.interface == interface_of(full)
