"""From Networks and Ports to what a data plane is told. Pure: the same on a host and on a SmartNIC."""

from __future__ import annotations

import ipaddress

from carmel.errors import Refused
from carmel.network.dataplane import DEFAULT_MTU, BondMode, NatPlan, NetworkPlan, PortPlan, Rate, UplinkPlan
from carmel.network.names import port_name
from carmel.resources.network import BridgeNetwork, NatNetwork, Network
from carmel.resources.port import Port, RateLimit


def network_plan(network: Network) -> NetworkPlan:
    """Raises ``Refused`` (``NotSupported``) for a provider that no data plane realises: user and cable."""
    spec = network.spec
    if spec.nat is None and spec.bridge is None:
        raise Refused(
            f"the network {network.metadata.name} has provider {spec.provider.value}, which no data plane realises",
            code="NotSupported",
            hint="use a network with provider nat or bridge",
        )
    return NetworkPlan(
        name=network.metadata.name,
        nat=_nat(spec.nat) if spec.nat is not None else None,
        uplink=_uplink(spec.bridge) if spec.bridge is not None else None,
        mtu=spec.mtu or DEFAULT_MTU,
    )


def port_plan(port: Port, *, mirror: Port | None = None, representor: str | None = None) -> PortPlan:
    """``mirror`` is the Port that ``spec.mirrorTo`` names, if it is there: without it the mirror waits.
    ``representor``: on a SmartNIC, the interface that stands for the function that is plugged in."""
    spec = port.spec
    limits = spec.limits
    return PortPlan(
        owner=spec.owner,
        nic=spec.nic,
        network=spec.network_ref.name,
        mac=spec.mac,
        vlan=spec.vlan,
        trunk=tuple(sorted(set(spec.trunk or ()))),
        addresses=tuple(ipaddress.ip_address(one) for one in spec.addresses or ()),
        source_guard=spec.source_guard,
        ingress=_rate(limits.ingress) if limits is not None else None,
        egress=_rate(limits.egress) if limits is not None else None,
        mirror_to=interface_of(mirror) if mirror is not None else None,
        representor=representor,
    )


def interface_of(port: Port) -> str:
    """The name of what realises ``port``, once it is plugged in."""
    return port_name(port.spec.owner, port.spec.nic)


def _nat(nat: NatNetwork) -> NatPlan:
    return NatPlan(ipaddress.IPv4Network(nat.subnet), dhcp=nat.dhcp)


def _uplink(bridge: BridgeNetwork) -> UplinkPlan:
    return UplinkPlan(
        members=tuple(bridge.uplinks),
        bond=BondMode(bridge.bond.value) if bridge.bond is not None else None,
        vlan=bridge.vlan,
        takeover=bridge.takeover,
        confirm_seconds=bridge.confirm_seconds,
    )


def _rate(limit: RateLimit | None) -> Rate | None:
    return None if limit is None else Rate(limit.kbps, limit.burst_kb)
