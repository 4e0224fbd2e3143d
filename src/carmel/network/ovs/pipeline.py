"""The data plane's flows: from ports, uplinks and gateways, as they are plugged, to what is done with a frame. Pure.

A *segment* is what one frame can reach without a router: a VLAN of an uplink, or a nat network. Ports whose VMs are
guarded are found by the MAC addresses that they have; only where somebody is plugged in who may have any address
(a port without guard), addresses are learned. Frames for an address that nobody knows go to uplinks, gateways and ports
without guard: a guarded port has no other address than its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from carmel.network.dataplane import PortPlan
from carmel.network.ovs.flows import Does, Flows, Match
from carmel.network.ovs.guard import guard_flows
from carmel.network.ovs.tables import (
    ANSWER,
    OUT,
    SEGMENT,
    SET,
    SOURCE,
    TARGET,
    ZONE,
    Table,
    load,
    port_id,
    to,
)

_UNTAGGED, _PRIORITY_TAGGED = "vlan_tci=0x0000/0x1fff", "vlan_tci=0x1000/0x1fff"
_ZONES = 0x8000
"""Zones of connection tracking begin here: the host's own has 0, others count from 1."""
_LEARNED_SECONDS, _MOST_LEARNED = 300, 4096
_CHUNK = 200
"""Targets a flow: an OpenFlow message has at most 64 KiB."""
_UNKNOWN = 1 << 16
"""Where the chunks for addresses that nobody knows begin."""


@dataclass(frozen=True, slots=True)
class Plugged:
    """A VM's port. ``tagged``: the segments of its trunk, by VLAN. ``mirror``: OpenFlow's number of who gets copies."""

    plan: PortPlan
    ofport: int
    access: int
    tagged: Mapping[int, int] = field(default_factory=dict)
    mirror: int | None = None

    @property
    def segments(self) -> tuple[int, ...]:
        return (self.access, *self.tagged.values())

    @property
    def meters(self) -> tuple[int, int]:
        """Of what the VM receives, and of what it sends."""
        return 2 * self.ofport, 2 * self.ofport + 1


@dataclass(frozen=True, slots=True)
class Outside:
    """An uplink, by the patch that leads to its bridge, or a nat network's gateway (``access`` alone)."""

    ofport: int
    access: int | None = None
    tagged: Mapping[int, int] = field(default_factory=dict)

    @property
    def segments(self) -> tuple[int, ...]:
        return (*([] if self.access is None else [self.access]), *self.tagged.values())


def zone_of(ofport: int) -> int:
    return _ZONES | ofport


def pipeline(ports: Sequence[Plugged], outside: Sequence[Outside], *, firewalled: bool) -> Flows:
    """``firewalled``: frames pass by the firewall's tables, in which nothing passes unless it was loaded."""
    learning = {segment for port in ports if not port.plan.source_guard for segment in port.segments}
    flows: dict[Match, Does] = {}
    for port in ports:
        flows.update(_from_port(port))
        flows.update(_learn(port.ofport, port.segments if not port.plan.source_guard else (), learning, firewalled))
        flows.update(_known(port))
        flows.update(_output_port(port))
    for one in outside:
        flows.update(_from_outside(one))
        flows.update(_learn(one.ofport, one.segments, learning, firewalled))
        flows.update(_output_outside(one))
    for number in (*(port.ofport for port in ports), *(one.ofport for one in outside)):
        # What comes back to where it came from would be dropped at last; before, rules would have counted it.
        flows[Match(Table.FLOOD_EACH, 1, f"in_port={number},{OUT}={number}")] = Does("drop")
    flows[Match(Table.FLOOD_EACH, 0)] = Does(_deliver(firewalled))
    there = {one for port in ports for one in port.segments} | {one for end in outside for one in end.segments}
    for segment in sorted(there):
        flows.update(_segment(segment, ports, outside, learns=segment in learning))
    return flows


def _deliver(firewalled: bool) -> str:  # noqa: FBT001 - it is one of two tables
    return to(Table.TO if firewalled else Table.OUTPUT)


def _target(ofport: int, identity: int) -> str:
    return ",".join((load(TARGET, identity), load(OUT, ofport), load(ZONE, zone_of(ofport)), load(ANSWER, 0)))


# -- who it comes from --------------------------------------------------------------------------------------------
def _from_port(port: Plugged) -> Iterator[tuple[Match, Does]]:
    at, plan = f"in_port={port.ofport}", port.plan
    sent = [f"meter:{port.meters[1]}"] if plan.egress is not None else []
    sent += [f"output:{port.mirror}"] if port.mirror is not None else []
    known = [load(SOURCE, port_id(plan.interface)), load(ZONE, zone_of(port.ofport)), load(ANSWER, 0)]

    def enters(segment: int, *strip: str) -> Does:
        return Does(",".join((*sent, *known, load(SEGMENT, segment), *strip, to(Table.GUARD))))

    yield Match(Table.CLASSIFY, 2, f"{at},{_UNTAGGED}"), enters(port.access)
    yield Match(Table.CLASSIFY, 2, f"{at},{_PRIORITY_TAGGED}"), enters(port.access, "pop_vlan")
    for vlan, segment in port.tagged.items():
        yield Match(Table.CLASSIFY, 1, f"{at},dl_vlan={vlan}"), enters(segment, "pop_vlan")
    # A VLAN that is not its own. DROPPED has a flow for guarded ports only, and drops the others' frames too.
    yield Match(Table.CLASSIFY, 0, at), Does(",".join((*sent, to(Table.DROPPED))))
    yield from guard_flows(plan, port.ofport)


def _from_outside(one: Outside) -> Iterator[tuple[Match, Does]]:
    at, first = f"in_port={one.ofport}", load(SOURCE, 0)
    if one.access is not None:
        enters = (first, load(SEGMENT, one.access))
        yield Match(Table.CLASSIFY, 2, f"{at},{_UNTAGGED}"), Does(",".join((*enters, to(Table.LEARN))))
        yield (
            Match(Table.CLASSIFY, 2, f"{at},{_PRIORITY_TAGGED}"),
            Does(",".join((*enters, "pop_vlan", to(Table.LEARN)))),
        )
    for vlan, segment in one.tagged.items():
        actions = (first, load(SEGMENT, segment), "pop_vlan", to(Table.LEARN))
        yield Match(Table.CLASSIFY, 1, f"{at},dl_vlan={vlan}"), Does(",".join(actions))


def _learn(
    ofport: int,
    segments: Iterable[int],
    learning: Iterable[int],
    firewalled: bool,  # noqa: FBT001
) -> Iterator[tuple[Match, Does]]:
    """In ``segments`` of ``learning``: where its senders are."""
    on = to(Table.FROM if firewalled else Table.SWITCH)
    learns = (
        f"learn(table={Table.LEARNED.value},cookie={ofport},priority=1,idle_timeout={_LEARNED_SECONDS},"
        f"limit={_MOST_LEARNED},NXM_NX_REG4[],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[],load:0x{ofport:x}->NXM_NX_REG9[])"
    )
    at = f"in_port={ofport}"
    yield Match(Table.LEARN, 0, at), Does(on)
    for segment in sorted(set(segments) & set(learning)):
        yield Match(Table.LEARN, 1, f"{at},{SEGMENT}={segment}"), Does(f"{learns},{on}")


# -- whom it is for -----------------------------------------------------------------------------------------------
def _known(port: Plugged) -> Iterator[tuple[Match, Does]]:
    """Where its VM is; and, for addresses that were learned at its end, what belongs to the number."""
    actions = _target(port.ofport, port_id(port.plan.interface))
    for segment in dict.fromkeys(port.segments):
        yield (
            Match(Table.SWITCH, 2, f"{SEGMENT}={segment},dl_dst={port.plan.mac}"),
            Does(f"{actions},{to(Table.FLOOD_EACH)}"),
        )
    if not port.plan.source_guard:
        yield Match(Table.WHERE, 1, f"{OUT}={port.ofport}"), Does(f"{actions},{to(Table.FLOOD_EACH)}")


def _segment(
    segment: int, ports: Sequence[Plugged], outside: Sequence[Outside], *, learns: bool
) -> Iterator[tuple[Match, Does]]:
    at = f"{SEGMENT}={segment}"
    here = [port for port in ports if segment in port.segments]
    ends = [_target(one.ofport, 0) for one in outside if segment in one.segments]
    all_of_them = [*ends, *(_target(port.ofport, port_id(port.plan.interface)) for port in here)]
    strangers = [
        *ends,
        *(_target(one.ofport, port_id(one.plan.interface)) for one in here if not one.plan.source_guard),
    ]
    begin = f"{load(SET, 0)},{to(Table.FLOOD)}"
    yield Match(Table.SWITCH, 1, f"{at},dl_dst=01:00:00:00:00:00/01:00:00:00:00:00"), Does(begin)
    yield from _flood(f"{at}", 0, all_of_them)
    unknown = f"{load(SET, _UNKNOWN)},{to(Table.FLOOD)}"
    yield from _flood(f"{at}", _UNKNOWN, strangers)
    if learns:
        yield Match(Table.SWITCH, 0, at), Does(f"{load(OUT, 0)},{to(Table.LEARNED)},{to(Table.WHERE)}")
        yield Match(Table.WHERE, 1, f"{at},{OUT}=0"), Does(unknown)
        for one in outside:
            yield Match(Table.WHERE, 1, f"{OUT}={one.ofport}"), Does(f"{_target(one.ofport, 0)},{to(Table.FLOOD_EACH)}")
    else:
        yield Match(Table.SWITCH, 0, at), Does(unknown)


def _flood(at: str, begin: int, targets: Sequence[str]) -> Iterator[tuple[Match, Does]]:
    """To each of ``targets``, in as many flows as they need."""
    for chunk, first in enumerate(range(0, len(targets), _CHUNK)):
        steps = [f"{one},{to(Table.FLOOD_EACH)}" for one in targets[first : first + _CHUNK]]
        if first + _CHUNK < len(targets):
            steps.append(f"{load(SET, begin + chunk + 1)},{to(Table.FLOOD)}")
        yield Match(Table.FLOOD, 0, f"{at},{SET}={begin + chunk}"), Does(",".join(steps))


# -- out of it ----------------------------------------------------------------------------------------------------
def _tagged(at: str, tagged: Mapping[int, int], before: str, after: str) -> Iterator[tuple[Match, Does]]:
    for vlan, segment in tagged.items():
        # The tag comes off again: the next of a flood's targets is to get the frame without it.
        actions = f"{before}push_vlan:0x8100,set_field:{vlan | 0x1000}->vlan_vid,{after},pop_vlan"
        yield Match(Table.OUTPUT, 1, f"{at},{SEGMENT}={segment}"), Does(actions)


def _output_port(port: Plugged) -> Iterator[tuple[Match, Does]]:
    before = f"meter:{port.meters[0]}," if port.plan.ingress is not None else ""
    after = f"output:{port.ofport}" + ("" if port.mirror is None else f",output:{port.mirror}")
    at = f"{OUT}={port.ofport}"
    yield Match(Table.OUTPUT, 0, at), Does(before + after)
    yield from _tagged(at, port.tagged, before, after)


def _output_outside(one: Outside) -> Iterator[tuple[Match, Does]]:
    at, after = f"{OUT}={one.ofport}", f"output:{one.ofport}"
    yield Match(Table.OUTPUT, 0, at), Does(after)
    yield from _tagged(at, one.tagged, "", after)
