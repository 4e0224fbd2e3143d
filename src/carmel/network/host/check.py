"""What contradicts itself, other networks or this machine: said before anything is changed. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Sequence

from carmel.errors import Refused
from carmel.network.dataplane import NATIVE_VLAN, NetworkPlan, PortPlan, Rate, UplinkPlan
from carmel.network.host.kernel import KernelState
from carmel.network.host.plan import bridge_of
from carmel.network.names import PORT, bond_name

LAST_VLAN = 4094
_LEAST_MTU, _MOST_MTU = 576, 9216
_LEAST_MTU_IPV6 = 1280
_MOST_BYTES_PER_SECOND = 2**32 - 1
_RANGE = range(16, 30)


def check_network(network: NetworkPlan, others: Sequence[NetworkPlan], kernel: KernelState) -> None:
    """Raises ``Refused``."""
    if (network.nat is None) == (network.uplink is None):
        raise Refused(f"the network {network.name} needs a subnet of its own or an uplink, and not both")
    if not _LEAST_MTU <= network.mtu <= _MOST_MTU:
        raise Refused(
            f"an MTU of {network.mtu} is not offered", code="InvalidMtu", hint=f"choose {_LEAST_MTU} to {_MOST_MTU}"
        )
    rest = [other for other in others if other.name != network.name]
    if network.nat is not None:
        _check_subnet(network, network.nat.subnet, rest, kernel)
    if network.uplink is not None:
        _check_uplink(network, network.uplink, rest, kernel)


def _check_subnet(
    network: NetworkPlan, subnet: ipaddress.IPv4Network, others: Iterable[NetworkPlan], kernel: KernelState
) -> None:
    if subnet.prefixlen not in _RANGE:
        raise Refused(f"the subnet {subnet} must have a prefix between /16 and /29", code="InvalidSubnet")
    if subnet.is_multicast or subnet.is_loopback or subnet.is_reserved or subnet.is_unspecified or subnet.is_link_local:
        raise Refused(
            f"the subnet {subnet} has a meaning of its own",
            code="InvalidSubnet",
            hint="take one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
        )
    for other in others:
        if other.nat is not None and other.nat.subnet.overlaps(subnet):
            raise Refused(
                f"the subnet {subnet} overlaps with {other.nat.subnet} of the network {other.name}",
                code="NetworksOverlap",
                hint="choose another subnet",
            )
    own = bridge_of(network)
    for link in kernel.links.values():
        for one in link.addresses:
            if link.name != own and isinstance(one, ipaddress.IPv4Interface) and one.network.overlaps(subnet):
                raise Refused(
                    f"the subnet {subnet} overlaps with {one.network}, where this host is by {link.name}",
                    code="NetworksOverlap",
                    hint="choose another subnet, or the host could not reach its own network",
                )


def _check_uplink(network: NetworkPlan, uplink: UplinkPlan, others: Sequence[NetworkPlan], kernel: KernelState) -> None:
    _check_vlan(uplink.vlan)
    if not uplink.members or (uplink.bond is None and len(uplink.members) != 1):
        raise Refused("several uplinks need a bond mode", code="InvalidUplink", hint="set the bond's mode")
    if len(set(uplink.members)) != len(uplink.members):
        raise Refused("an uplink is named twice", code="InvalidUplink")
    bridge = kernel.links.get(bridge_of(network))
    if bridge is not None and bridge.addresses and not uplink.takeover:
        raise Refused(
            f"the bridge of {', '.join(uplink.members)} has the host's addresses, and cannot be without them now",
            code="UplinkInUse",
            hint="delete the network, which gives them back, and make it again",
        )
    master = bridge_of(network) if uplink.bond is None else bond_name(uplink.members)
    for member in uplink.members:
        _check_member(member, master, uplink, kernel)
    for other in others:
        if other.uplink is None:
            continue
        same = bridge_of(other) == bridge_of(network)
        if not same and set(other.uplink.members) & set(uplink.members):
            raise Refused(
                f"the network {other.name} has {', '.join(sorted(set(other.uplink.members) & set(uplink.members)))} "
                "in another uplink",
                code="UplinkInUse",
                hint="use the same members, which networks share as VLANs of one bridge",
            )
        if same and (other.uplink.vlan or NATIVE_VLAN) == (uplink.vlan or NATIVE_VLAN):
            raise Refused(
                f"the network {other.name} is the same one: the same uplink and VLAN",
                code="NetworksOverlap",
                hint="use that network, or another VLAN",
            )
        if same and (other.uplink.bond, other.uplink.takeover) != (uplink.bond, uplink.takeover):
            raise Refused(
                f"the network {other.name} uses the uplink with another bond mode or takeover",
                code="UplinkInUse",
                hint="networks on one uplink agree on these",
            )


def _check_member(name: str, master: str, uplink: UplinkPlan, kernel: KernelState) -> None:
    link = kernel.links.get(name)
    if link is None:
        raise Refused(
            f"this host has no interface {name}",
            code="NoSuchUplink",
            hint="it has "
            + ", ".join(sorted(one.name for one in kernel.links.values() if not one.ours and not one.loopback)),
        )
    if link.loopback or link.ours or link.kind in {"bridge", "tun"}:
        raise Refused(f"{name} cannot be an uplink: it leads nowhere", code="InvalidUplink", hint="name a network card")
    if link.master not in (None, master):
        raise Refused(
            f"{name} is a part of {link.master} already", code="UplinkInUse", hint="take it out of that first"
        )
    if not link.addresses:
        return
    if not uplink.takeover:
        raise Refused(
            f"{name} has addresses of this host ({', '.join(sorted(map(str, link.addresses)))}): as a bridge's port it "
            "would lose them, and perhaps you the host",
            code="UplinkInUse",
            hint="use an interface without addresses, or have them taken over by the bridge",
        )
    if uplink.bond is not None:
        raise Refused(
            f"{name} has addresses of this host, which a new bond cannot take over",
            code="UplinkInUse",
            hint="make the bond by the host's own configuration, and name it as the uplink",
        )


def check_port(port: PortPlan, network: NetworkPlan, others: Iterable[PortPlan]) -> None:
    """Raises ``Refused``."""
    for vid in (port.vlan, *port.trunk):
        _check_vlan(vid)
    if network.uplink is None and (port.vlan is not None or port.trunk):
        raise Refused(
            f"the network {network.name} has no VLANs", code="NoVlans", hint="they need a network on an uplink"
        )
    first = int(port.mac.split(":")[0], 16)
    if first & 1:
        raise Refused(f"{port.mac} is a group's address", code="InvalidMac", hint="the first byte of a MAC is even")
    for rate in (port.ingress, port.egress):
        _check_rate(rate)
    for other in others:
        if other.interface == port.interface or other.network != port.network:
            continue
        if other.mac == port.mac:
            raise Refused(
                f"the MAC address {port.mac} is another port's of the network {network.name}",
                code="MacInUse",
                hint="leave the mac out and let Carmel choose",
            )
        same = set(other.addresses) & set(port.addresses)
        if same:
            raise Refused(
                f"the address {min(map(str, same))} is another port's of the network {network.name}",
                code="AddressInUse",
            )
    if network.nat is not None:
        _check_nat_addresses(port, network.nat.subnet, network)
    if port.mirror_to == port.interface or (port.mirror_to is not None and not port.mirror_to.startswith(PORT)):
        raise Refused("a mirror leads to another port", code="InvalidMirror")


def _check_nat_addresses(port: PortPlan, subnet: ipaddress.IPv4Network, network: NetworkPlan) -> None:
    if not port.addresses:
        raise Refused(f"a port of the network {network.name} needs its address", code="AddressMissing")
    for address in port.addresses:
        if address.version == 4 and address not in reserved_addresses(subnet) and address in subnet:
            continue
        raise Refused(
            f"the address {address} is not one for VMs of {subnet}", code="InvalidAddress", hint="leave it out"
        )


def reserved_addresses(subnet: ipaddress.IPv4Network) -> Collection[ipaddress.IPv4Address]:
    """Of the network itself, of the host, and the broadcast address."""
    return (subnet[0], subnet[1], subnet[-1])


def _check_vlan(vid: int | None) -> None:
    if vid is not None and not 1 <= vid <= LAST_VLAN:
        raise Refused(f"there is no VLAN {vid}", code="InvalidVlan", hint=f"choose 1 to {LAST_VLAN}")


def _check_rate(rate: Rate | None) -> None:
    if rate is not None and not 8 <= rate.kbps <= _MOST_BYTES_PER_SECOND * 8 // 1000:
        raise Refused(
            f"a limit of {rate.kbps} kbit/s is not offered",
            code="InvalidLimit",
            hint="choose 8 kbit/s to 34 Gbit/s, or no limit",
        )
