"""What is in Open vSwitch's database, as far as Carmel goes, and the rows that are missing or too many. Pure.

The words are those of ovs-vswitchd.conf.db(5). All ports of VMs are on one bridge, ``SWITCH``, so that what decides
about frames changes in one bundle. Each uplink has a bridge of its own, which does no more than a plain switch does
(and bonds); a pair of patch ports leads there. A nat network is an internal port of ``SWITCH``, with the bridge's name
that it would have without Open vSwitch.

A bridge or port is Carmel's if it has the external id ``carmel``; a bridge's name alone says nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from carmel.errors import Refused
from carmel.network.dataplane import BondMode, NetworkPlan, PortPlan, UplinkPlan
from carmel.network.names import bond_name, nat_bridge, uplink_bridge
from carmel.network.ovs.mtus import NotedMtu

SWITCH = "cmb-ports"
OURS = "carmel"
"""The key of the external id."""
_PATCH_IN, _PATCH_OUT = "cmq", "cmr"
_BONDS = {BondMode.ACTIVE_BACKUP: "active-backup", BondMode.LACP: "balance-tcp", BondMode.BALANCE_XOR: "balance-slb"}


@dataclass(frozen=True, slots=True)
class Interface:
    """``type``: empty for one of the kernel's, ``internal`` or ``patch`` (``peer``: the other end). ``mtu``: what Open
    vSwitch is asked for, not of uplinks (``mtus``)."""

    name: str
    type: str = ""
    peer: str | None = None
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class Port:
    """Several interfaces are a bond: ``bond_mode`` and ``lacp``."""

    name: str
    interfaces: tuple[Interface, ...]
    bond_mode: str | None = None
    lacp: str | None = None


@dataclass(frozen=True, slots=True)
class Bridge:
    """``secure``: what no flow matches is dropped; otherwise it is a plain switch. Its own port, of its name, is not
    among ``ports``."""

    name: str
    datapath: str
    secure: bool
    ports: tuple[Port, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What there is. ``others``: bridges and, within Carmel's, ports that are somebody else's: interfaces by bridge.
    ``numbers``: OpenFlow's, of interfaces that work; ``errors``: what is wrong with those that do not. ``mtus``: what
    is noted of uplinks."""

    bridges: Mapping[str, Bridge] = field(default_factory=dict)
    others: Mapping[str, frozenset[str]] = field(default_factory=dict)
    numbers: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)
    mtus: Mapping[str, NotedMtu] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RemoveBridge:
    name: str


@dataclass(frozen=True, slots=True)
class RemovePort:
    bridge: str
    name: str


@dataclass(frozen=True, slots=True)
class AddBridge:
    """Without its ports."""

    bridge: Bridge


@dataclass(frozen=True, slots=True)
class AddPort:
    bridge: str
    port: Port


RowStep = RemoveBridge | RemovePort | AddBridge | AddPort


def patch_in(members: Sequence[str]) -> str:
    """The uplink's patch port on ``SWITCH``."""
    return _PATCH_IN + hashlib.sha256("/".join(sorted(members)).encode()).hexdigest()[:10]


def patch_out(members: Sequence[str]) -> str:
    return _PATCH_OUT + patch_in(members).removeprefix(_PATCH_IN)


def wanted_bridges(
    networks: Sequence[NetworkPlan], ports: Iterable[PortPlan], datapath: str, *, always: bool = False
) -> tuple[Bridge, ...]:
    """``always``: ``SWITCH`` is there without networks too."""
    mtus = {network.name: network.mtu for network in networks}
    inside = [
        Port(name, (Interface(name, "internal", mtu=network.mtu),))
        for network in networks
        if network.nat is not None
        for name in (nat_bridge(network.name),)
    ]
    uplinks: dict[str, UplinkPlan] = {uplink_bridge(one.uplink.members): one.uplink for one in networks if one.uplink}
    outside = []
    for name, uplink in uplinks.items():
        near, far = patch_in(uplink.members), patch_out(uplink.members)
        inside.append(Port(near, (Interface(near, "patch", far),)))
        patch = Port(far, (Interface(far, "patch", near),))
        outside.append(Bridge(name, datapath, secure=False, ports=_sorted([patch, _uplink(uplink)])))
    inside += [
        Port(port.interface, (Interface(port.interface, mtu=mtus[port.network]),))
        for port in ports
        if port.network in mtus
    ]
    if not inside and not always:
        return ()
    return (Bridge(SWITCH, datapath, secure=True, ports=_sorted(inside)), *outside)


def _uplink(uplink: UplinkPlan) -> Port:
    members = tuple(Interface(name) for name in sorted(uplink.members))
    if uplink.bond is None:
        return Port(uplink.members[0], members)
    lacp = "active" if uplink.bond is BondMode.LACP else None
    return Port(bond_name(uplink.members), members, _BONDS[uplink.bond], lacp)


def _sorted(ports: Iterable[Port]) -> tuple[Port, ...]:
    return tuple(sorted(ports, key=lambda port: port.name))


def too_many(wanted: Sequence[Bridge], seen: Seen, fresh: Iterable[str] = ()) -> tuple[RowStep, ...]:
    """What goes first. ``fresh``: ports whose interface was made anew, which Open vSwitch is to open again."""
    by_name = {bridge.name: bridge for bridge in wanted}
    again = set(fresh)
    steps: list[RowStep] = []
    for name, there in seen.bridges.items():
        kept = by_name.get(name)
        if kept is None or (kept.datapath, kept.secure) != (there.datapath, there.secure):
            steps.append(RemoveBridge(name))
            continue
        steps += [RemovePort(name, port.name) for port in there.ports if port not in kept.ports or port.name in again]
    return tuple(steps)


def leaving(steps: Iterable[RowStep], seen: Seen) -> Iterator[str]:
    """The interfaces whose rows are removed."""
    for step in steps:
        match step:
            case RemoveBridge(name):
                ports = seen.bridges[name].ports
            case RemovePort(bridge, name):
                ports = tuple(port for port in seen.bridges[bridge].ports if port.name == name)
            case _:
                continue
        yield from (one.name for port in ports for one in port.interfaces)


def missing(wanted: Sequence[Bridge], seen: Seen) -> tuple[RowStep, ...]:
    """Raises ``Refused`` (``NameTaken``) for a bridge of Carmel's name that is somebody else's."""
    steps: list[RowStep] = []
    for bridge in wanted:
        there = seen.bridges.get(bridge.name)
        if there is None:
            if bridge.name in seen.others:
                raise Refused(
                    f"Open vSwitch has a bridge {bridge.name} that Carmel did not make",
                    code="NameTaken",
                    hint=f"rename or delete it: ovs-vsctl del-br {bridge.name}",
                )
            steps.append(AddBridge(bridge))
        have = () if there is None else there.ports
        steps += [AddPort(bridge.name, port) for port in bridge.ports if port not in have]
    return tuple(steps)


def masters(seen: Seen) -> dict[str, str]:
    """For each interface of the kernel's the bridge (or the bond of ours) that it is a part of."""
    found = {name: bridge for bridge, some in seen.others.items() for name in some}
    for bridge in seen.bridges.values():
        for port in bridge.ports:
            for one in port.interfaces:
                found[one.name] = bridge.name if port.bond_mode is None else port.name
    return found
