"""From networks, ports and what is in the kernel to the steps that are missing. Pure; nothing missing, no steps.

All networks on one uplink share one bridge and are VLANs of it. A bridge with an uplink always filters VLANs, and its
ports are in none until they were put into one: a tap sees nothing before it is where it belongs.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence

from carmel.network.dataplane import NATIVE_VLAN, NetworkPlan, PortPlan, Rate, UplinkPlan
from carmel.network.host.kernel import Copies, KernelState, Link, Shape, Vlan, uplink_alias
from carmel.network.host.lending import to_give_back
from carmel.network.host.steps import (
    AddAddress,
    AddVlan,
    MakeBond,
    MakeBridge,
    MakeShaper,
    MarkPort,
    Remove,
    RemoveAddress,
    RemoveVlan,
    SetCopies,
    SetMaster,
    SetMtu,
    SetShape,
    SetUp,
    Step,
    TakeOver,
)
from carmel.network.names import bond_name, nat_bridge, nat_mac, shaper_name, uplink_bridge

_SHAPER = "ifb"
_BURST_SECONDS = 0.02
_LEAST_BURST = 16 * 1024
"""A segment that was offloaded (64 KiB) may come as one: tbf cuts it up, but not below an MTU."""


def bridge_of(network: NetworkPlan) -> str:
    return nat_bridge(network.name) if network.uplink is None else uplink_bridge(network.uplink.members)


def uplink_link(uplink: UplinkPlan) -> str:
    """What is plugged into the bridge."""
    return uplink.members[0] if uplink.bond is None else bond_name(uplink.members)


def shape_of(rate: Rate) -> Shape:
    per_second = rate.kbps * 1000 // 8
    burst = rate.burst_kb * 1000 if rate.burst_kb is not None else int(per_second * _BURST_SECONDS)
    return Shape(per_second, max(burst, _LEAST_BURST))


def removals(networks: Sequence[NetworkPlan], ports: Sequence[PortPlan], kernel: KernelState) -> tuple[Step, ...]:
    """What is Carmel's and nobody's any more goes first, while its filters are still there."""
    return tuple(_leftovers(networks, ports, kernel))


def plan(networks: Sequence[NetworkPlan], ports: Sequence[PortPlan], kernel: KernelState) -> tuple[Step, ...]:
    """What is missing. ``ports`` that have no tap in the kernel are passed over: their VM is gone, or not there yet.
    Representors were taken before (``lending.to_take``)."""
    by_name = {network.name: network for network in networks}
    here = [port for port in ports if port.interface in kernel.links and port.network in by_name]
    steps: list[Step] = []
    for bridge, members in _by_bridge(networks).items():
        steps += _bridge(bridge, members, [port for port in here if bridge_of(by_name[port.network]) == bridge], kernel)
    for port in here:
        steps += _port(port, by_name[port.network], kernel)
    # Last, when all that they lead to is there; and what nothing leads to any more.
    for port in here:
        steps += _copies(port, kernel, {other.interface for other in here})
    steps += _idle_shapers(here, kernel)
    return tuple(steps)


def _by_bridge(networks: Sequence[NetworkPlan]) -> Mapping[str, list[NetworkPlan]]:
    grouped: dict[str, list[NetworkPlan]] = {}
    for network in networks:
        grouped.setdefault(bridge_of(network), []).append(network)
    return grouped


def _leftovers(networks: Sequence[NetworkPlan], ports: Sequence[PortPlan], kernel: KernelState) -> Iterator[Step]:
    """Ports first: what is without a network must not live on for a moment longer than its bridge."""
    keep = {bridge_of(network) for network in networks}
    keep |= {uplink_link(network.uplink) for network in networks if network.uplink is not None}
    keep |= {port.interface for port in ports}
    modes = {uplink_link(one.uplink): one.uplink.bond for one in networks if one.uplink is not None}
    keep -= {link.name for link in kernel.links.values() if link.bond_mode not in (None, modes.get(link.name))}
    yield from to_give_back(ports, kernel)
    gone = [
        link
        for link in kernel.links.values()
        if link.ours and link.lent is None and link.name not in keep and link.kind != _SHAPER
    ]
    for link in sorted(gone, key=lambda link: link.kind != "tun"):
        if link.addresses and link.vlan_filtering:
            yield from _give_back(link, kernel)
        yield from _mtu_as_before(link, kernel)
        yield Remove(link.name)


def _give_back(bridge: Link, kernel: KernelState) -> Iterator[Step]:
    """The addresses of an uplink that was taken over."""
    for link in kernel.links.values():
        if link.master == bridge.name and not link.ours:
            yield SetMaster(link.name, None)
            yield TakeOver(bridge.name, link.name)


def _mtu_as_before(bridge: Link, kernel: KernelState) -> Iterator[Step]:
    """Of the uplink, unless somebody else has set it since."""
    for link in kernel.links.values():
        had = bridge.uplink_had_mtu
        if had is not None and link.master == bridge.name and not link.ours and had != link.mtu == bridge.mtu:
            yield SetMtu(link.name, had)


def _idle_shapers(ports: Sequence[PortPlan], kernel: KernelState) -> Iterator[Step]:
    used = {shaper_name(port.interface) for port in ports if port.egress is not None}
    yield from (
        Remove(link.name)
        for link in kernel.links.values()
        if link.ours and link.kind == _SHAPER and link.name not in used
    )


# -- bridges ------------------------------------------------------------------------------------------------------
def _bridge(
    name: str, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan], kernel: KernelState
) -> Iterator[Step]:
    first, mtu = networks[0], max(network.mtu for network in networks)
    there = kernel.links.get(name)
    uplink = first.uplink
    if uplink is not None and uplink.bond is not None:
        yield from _bond(uplink, mtu, kernel)
    outside = None if uplink is None else kernel.links.get(uplink_link(uplink))
    out = None if outside is None else _outer_mtu(mtu, outside, there)
    # Whenever this ends too early, the bridge still says what was before.
    if outside is not None and out is not None and out < outside.mtu:
        yield SetMtu(outside.name, out)
    if there is None:
        takes_over = outside is not None and uplink is not None and uplink.takeover
        # The host keeps its address in the network's tables; and guests that of their gateway, whoever is plugged in.
        mac = outside.mac if outside is not None and takes_over else nat_mac(first.name) if first.nat else None
        had = outside.mtu if outside is not None and not outside.ours else None
        alias = f"carmel network {first.name}" if uplink is None else uplink_alias(uplink.members, had)
        yield MakeBridge(name, alias, mtu, uplink is not None, mac, takes_over)
    elif there.mtu != mtu:
        yield SetMtu(name, mtu)
    if outside is not None and out is not None and out > outside.mtu:
        yield SetMtu(outside.name, out)
    if first.nat is not None:
        own = ipaddress.IPv4Interface((first.nat.gateway, first.nat.subnet.prefixlen))
        addresses = frozenset() if there is None else there.addresses
        yield from (RemoveAddress(name, old) for old in sorted(addresses - {own}, key=str))
        if own not in addresses:
            yield AddAddress(name, own)
    if there is None or not there.up:
        yield SetUp(name)
    if uplink is not None:
        yield from _uplink(name, uplink, outside, there, _vlans_out(networks, ports))


def _outer_mtu(mtu: int, outside: Link, bridge: Link | None) -> int:
    """Of an uplink: as much as its networks need. What was raised for them is lowered again, to what it had."""
    if outside.ours:
        return max(mtu, Link("", 0).mtu)
    had = None if bridge is None else bridge.uplink_had_mtu
    if bridge is not None and had is not None and outside.mtu == bridge.mtu:
        return max(had, mtu)
    return max(outside.mtu, mtu)


def _bond(uplink: UplinkPlan, mtu: int, kernel: KernelState) -> Iterator[Step]:
    name = bond_name(uplink.members)
    there = kernel.links.get(name)
    if there is None:
        assert uplink.bond is not None
        yield MakeBond(name, f"carmel bond {' '.join(uplink.members)}", uplink.bond)
    for member in uplink.members:
        link = kernel.links.get(member)
        if link is None or link.master != name:
            yield SetMaster(member, name, down_first=True)
            yield SetUp(member)
    if there is None and mtu != Link("", 0).mtu:
        yield SetMtu(name, mtu)
    if there is None or not there.up:
        yield SetUp(name)


def _uplink(
    bridge: str, uplink: UplinkPlan, outside: Link | None, there: Link | None, vlans: frozenset[Vlan]
) -> Iterator[Step]:
    name = uplink_link(uplink)
    if outside is None or outside.master != bridge:
        yield SetMaster(name, bridge)
    yield from _vlans(name, vlans, frozenset() if outside is None or outside.master != bridge else outside.vlans)
    own = frozenset({Vlan(NATIVE_VLAN, pvid=True, untagged=True)}) if uplink.takeover else frozenset()
    yield from _vlans(bridge, own, frozenset() if there is None else there.vlans, own=True)
    if outside is None or not outside.up:
        yield SetUp(name)
    if outside is not None and outside.addresses and uplink.takeover:
        yield TakeOver(name, bridge)


def _vlans_out(networks: Iterable[NetworkPlan], ports: Iterable[PortPlan]) -> frozenset[Vlan]:
    """Of an uplink: all that somebody uses, tagged; the native one untagged."""
    used = {network.uplink.vlan for network in networks if network.uplink is not None}
    used |= {vid for port in ports for vid in (port.vlan, *port.trunk)}
    tagged = {Vlan(vid) for vid in used if vid is not None and vid != NATIVE_VLAN}
    return frozenset({*tagged, Vlan(NATIVE_VLAN, pvid=True, untagged=True)})


def _vlans(name: str, wanted: frozenset[Vlan], there: frozenset[Vlan], *, own: bool = False) -> Iterator[Step]:
    kept = {vlan.vid for vlan in wanted}
    yield from (RemoveVlan(name, vlan.vid, own) for vlan in sorted(there, key=_vid) if vlan.vid not in kept)
    yield from (AddVlan(name, vlan, own) for vlan in sorted(wanted - there, key=_vid))


def _vid(vlan: Vlan) -> int:
    return vlan.vid


# -- ports --------------------------------------------------------------------------------------------------------
def _port(port: PortPlan, network: NetworkPlan, kernel: KernelState) -> Iterator[Step]:
    link, bridge = kernel.links[port.interface], bridge_of(network)
    if not link.ours:
        yield MarkPort(link.name, f"carmel port {port.owner} {port.nic}")
    if link.mtu != network.mtu:
        yield SetMtu(link.name, network.mtu)
    plugged = link.master == bridge
    if not plugged:
        yield SetMaster(link.name, bridge)
    if network.uplink is not None:
        access = port.vlan or network.uplink.vlan or NATIVE_VLAN
        wanted = {Vlan(vid) for vid in port.trunk if vid != access} | {Vlan(access, pvid=True, untagged=True)}
        yield from _vlans(link.name, frozenset(wanted), link.vlans if plugged else frozenset())
    shape = None if port.ingress is None else shape_of(port.ingress)
    if link.shape != (None if shape is None else (shape.bytes_per_second, shape.ticks)):
        yield SetShape(link.name, shape)
    if port.egress is not None:
        yield from _shaper(port, shape_of(port.egress), kernel)
    if not link.up:
        yield SetUp(link.name)


def _shaper(port: PortPlan, shape: Shape, kernel: KernelState) -> Iterator[Step]:
    name = shaper_name(port.interface)
    there = kernel.links.get(name)
    if there is None:
        yield MakeShaper(name, f"carmel limit of {port.interface}")
    if there is None or there.shape != (shape.bytes_per_second, shape.ticks):
        yield SetShape(name, shape)
    if there is None or not there.up:
        yield SetUp(name)


def _copies(port: PortPlan, kernel: KernelState, here: set[str]) -> Iterator[Step]:
    """A mirror whose target is not there waits for it."""
    redirect = shaper_name(port.interface) if port.egress is not None else None
    mirror = port.mirror_to if port.mirror_to in here else None
    wanted = Copies(redirect, mirror)
    if kernel.links[port.interface].copies != wanted:
        yield SetCopies(port.interface, wanted)
