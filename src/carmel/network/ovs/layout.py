"""From plans, and what Open vSwitch says of its ports, to who is plugged in where. Pure.

A segment's number is what its name has (``numbers.numbered``): a nat network, or a VLAN of an uplink.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from carmel.network.dataplane import NATIVE_VLAN, NetworkPlan, PortPlan
from carmel.network.host.kernel import KernelState
from carmel.network.host.plan import bridge_of, shape_of
from carmel.network.ovs.numbers import numbered
from carmel.network.ovs.openflow import Meters
from carmel.network.ovs.pipeline import Outside, Plugged
from carmel.network.ovs.rows import Seen, masters, patch_in


def _segment(bridge: str, vlan: int | None) -> str:
    return f"{bridge}/{vlan or NATIVE_VLAN}"


def _access(port: PortPlan, network: NetworkPlan) -> int | None:
    if network.uplink is None:
        return None
    return port.vlan or network.uplink.vlan


def segments(networks: Sequence[NetworkPlan], ports: Sequence[PortPlan], before: Mapping[str, int]) -> dict[str, int]:
    """All that there are, by name. Those of ``before`` keep their numbers."""
    by_name = {network.name: network for network in networks}
    names = {_segment(bridge_of(one), None if one.uplink is None else one.uplink.vlan): None for one in networks}
    for port in ports:
        network = by_name[port.network]
        for vlan in (_access(port, network), *port.trunk):
            names[_segment(bridge_of(network), vlan)] = None
    return numbered(list(names), before)


def plugged(
    networks: Sequence[NetworkPlan], ports: Sequence[PortPlan], numbers: Mapping[str, int], seen: Seen
) -> list[Plugged]:
    """``ports`` that Open vSwitch has opened. A mirror whose target is not there waits for it."""
    by_name = {network.name: network for network in networks}
    found = []
    for port in ports:
        ofport = seen.numbers.get(port.interface)
        if ofport is None:
            continue
        network = by_name[port.network]
        bridge, own = bridge_of(network), _access(port, network)
        tagged = {vlan: numbers[_segment(bridge, vlan)] for vlan in port.trunk if vlan != (own or NATIVE_VLAN)}
        mirror = None if port.mirror_to is None else seen.numbers.get(port.mirror_to)
        found.append(Plugged(port, ofport, numbers[_segment(bridge, own)], tagged, mirror))
    return found


def outside(networks: Sequence[NetworkPlan], numbers: Mapping[str, int], seen: Seen) -> list[Outside]:
    """Gateways of nat networks, and the patches to uplinks' bridges."""
    natted = [bridge_of(network) for network in networks if network.nat is not None]
    found = [Outside(seen.numbers[name], numbers[_segment(name, None)]) for name in natted if name in seen.numbers]
    for bridge, members in {bridge_of(one): one.uplink.members for one in networks if one.uplink is not None}.items():
        ofport = seen.numbers.get(patch_in(members))
        if ofport is None:
            continue
        vlans = {
            int(name.rpartition("/")[2]): number for name, number in numbers.items() if name.startswith(f"{bridge}/")
        }
        found.append(Outside(ofport, vlans.pop(NATIVE_VLAN, None), vlans))
    return found


def meters(ports: Sequence[Plugged]) -> Meters:
    wanted = {}
    for port in ports:
        for number, rate in zip(port.meters, (port.plan.ingress, port.plan.egress), strict=True):
            if rate is not None:
                wanted[number] = (rate.kbps, max(shape_of(rate).burst_bytes * 8 // 1000, 1))
    return wanted


def as_bridged(kernel: KernelState, seen: Seen) -> KernelState:
    """Links with the bridge of Open vSwitch that they are in as their master: the kernel does not know, or calls all of
    them ovs-system."""
    inside = masters(seen)
    return KernelState(
        {name: replace(link, master=inside[name]) if name in inside else link for name, link in kernel.links.items()}
    )
