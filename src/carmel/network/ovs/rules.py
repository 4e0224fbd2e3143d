"""A policy's lookups as flows. Pure.

A lookup is a hash table, and so is Open vSwitch's classifier for all flows of one shape: each entry is a flow, and its
lookup's place in the order is its priority. Addresses of VMs are in tables of sets, one entry an address: a VM that
comes or goes changes these alone. Before a policy is asked, the sets that it names are, and a bit for each says whether
the address is in it. A policy that names many sets is asked in parts, of as many sets as there are bits.
"""

from __future__ import annotations

import itertools
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from carmel.network.firewall.compile import Chain
from carmel.network.firewall.lookups import Key, Lookup, Shape
from carmel.network.firewall.matches import Network
from carmel.network.firewall.model import RuleRef
from carmel.network.ovs.flows import Does, Flows, Match
from carmel.network.ovs.numbers import numbered
from carmel.network.ovs.places import places
from carmel.network.ovs.tables import DECISION, MEMBER, MEMBERSHIPS, SET, STEP, Table, load, to
from carmel.resources.firewallpolicy import Action, Direction

_MOST_SETS = 128
"""Bits of the four registers."""
_MOST_LOOKUPS = 60_000
"""Of a part: each has a priority of its own, of which there are 65,536."""
_NOTHING: Iterator[tuple[Mapping[str, int], Mapping[str, int]]] = itertools.repeat(({}, {}))
ALLOWED, DENIED = 1, 2
LOG_METER = 1
"""Of all packets that rules log. Ports' meters begin at 2 (``Plugged.meters``)."""
_LOGS = f"controller(max_len=128,meter_id={LOG_METER})"
_TYPES = {4: "dl_type=0x0800", 6: "dl_type=0x86dd"}
_WITH_PORTS = (6, 17, 132)


@dataclass(frozen=True, slots=True)
class Part:
    """Lookups that are asked at once, and the sets that they name, in the order of their bits."""

    lookups: tuple[Lookup, ...]
    sets: tuple[str, ...]


def parts_of(chain: Chain) -> tuple[Part, ...]:
    parts: list[Part] = []
    lookups: list[Lookup] = []
    sets: dict[str, None] = {}
    for lookup in chain.lookups:
        name = lookup.shape.members
        grown = sets if name is None else {**sets, name: None}
        if len(grown) > _MOST_SETS or len(lookups) == _MOST_LOOKUPS:
            parts.append(Part(tuple(lookups), tuple(sets)))
            lookups, grown = [], {} if name is None else {name: None}
        lookups.append(lookup)
        sets = grown
    return (*parts, Part(tuple(lookups), tuple(sets)))


def chain_name(chain: Chain) -> str:
    return f"{chain.direction.value}/{chain.policy}"


def part_name(chain: Chain, index: int) -> str:
    return f"{chain_name(chain)}/{index}"


def cookie_of(part: int, rule: RuleRef) -> int:
    """What a rule's flows are counted by. ``part``: the number of its chain's first part."""
    return part << 32 | rule.position + 1


@dataclass(frozen=True, slots=True)
class ChainFlows:
    """What one ``Chain`` is in Open vSwitch. ``steps`` are the numbers of its parts, ``sets`` those of the sets that it
    names: while they stay, so do the flows. ``orders``: the priorities of each part's lookups, by name, and ``bits``:
    those of its sets. ``rules`` says whose a cookie is, ``logged`` those that log."""

    chain: Chain
    steps: tuple[int, ...]
    sets: tuple[int, ...]
    orders: tuple[Mapping[str, int], ...]
    bits: tuple[Mapping[str, int], ...]
    flows: Flows
    rules: Mapping[int, RuleRef]
    logged: Mapping[int, RuleRef]


def chain_flows(
    chain: Chain, parts: Sequence[Part], steps: Sequence[int], sets: Mapping[str, int], before: ChainFlows | None
) -> ChainFlows:
    """``before``, of an earlier chain of the same policy: what did not change keeps its flows, and with them their
    counters."""
    named = tuple(sets[name] for part in parts for name in part.sets)
    if before is not None and before.chain is chain and (before.steps, before.sets) == (tuple(steps), named):
        return before
    had = itertools.chain([] if before is None else zip(before.orders, before.bits, strict=True), _NOTHING)
    orders, bits = [], []
    flows: dict[Match, Does] = {}
    for index, (part, (order, bit)) in enumerate(zip(parts, had, strict=False)):
        orders.append(places(_names(part.lookups), order))
        bits.append(numbered(part.sets, bit))
        actions = list(_memberships(part, chain.direction, sets, bits[-1]))
        actions += [load(STEP, steps[index]), to(Table.RULES)]
        if index + 1 < len(parts):
            actions += [load(STEP, steps[index + 1]), to(Table.CHAIN)]
        flows[Match(Table.CHAIN, 1, f"{DECISION}=0,{STEP}={steps[index]}")] = Does(",".join(actions))
        flows.update(_rules(part, steps[index], steps[0], chain.direction, orders[-1], bits[-1]))
    outcomes, logging = set[RuleRef](), set[RuleRef]()
    for lookup in chain.lookups:
        for outcome in lookup.entries.values():
            outcomes.add(outcome.rule)
            if outcome.log:
                logging.add(outcome.rule)
    rules = {cookie_of(steps[0], rule): rule for rule in outcomes}
    logged = {cookie_of(steps[0], rule): rule for rule in logging}
    return ChainFlows(chain, tuple(steps), named, tuple(orders), tuple(bits), flows, rules, logged)


def _names(lookups: Iterable[Lookup]) -> list[str]:
    """The same for the same lookup while the policy's text changes elsewhere: its shape, and the how many-th it is."""
    seen: Counter[Shape] = Counter()
    names = []
    for lookup in lookups:
        names.append(f"{lookup.shape}/{seen[lookup.shape]}")
        seen[lookup.shape] += 1
    return names


def _memberships(part: Part, direction: Direction, sets: Mapping[str, int], bits: Mapping[str, int]) -> Iterator[str]:
    """Ask each set of the part, and keep the answer in its bit."""
    asks = Table.SETS_SOURCE if direction is Direction.INGRESS else Table.SETS_TARGET
    for name in part.sets:
        register, at = _register(bits[name])
        yield from (load(SET, sets[name]), load(MEMBER, 0), to(asks))
        yield f"move:NXM_NX_{MEMBER.upper()}[0]->NXM_NX_{register.upper()}[{at}]"


def _register(bit: int) -> tuple[str, int]:
    """``bit`` counts from 1."""
    return f"reg{MEMBERSHIPS + (bit - 1) // 32}", (bit - 1) % 32


def _rules(
    part: Part, step: int, first: int, direction: Direction, order: Mapping[str, int], bits: Mapping[str, int]
) -> Iterator[tuple[Match, Does]]:
    base = f"{DECISION}=0,{STEP}={step}"
    peer = "src" if direction is Direction.INGRESS else "dst"
    for name, lookup in zip(_names(part.lookups), part.lookups, strict=True):
        guard = base
        if lookup.shape.members is not None:
            register, at = _register(bits[lookup.shape.members])
            guard += f",{register}=0x{1 << at:x}/0x{1 << at:x}"
        for key, outcome in lookup.entries.items():
            decides = _DECIDES[outcome.action, outcome.log]
            cookie = cookie_of(first, outcome.rule)
            for fields in _fields(lookup.shape, key, peer):
                for state, actions in decides:
                    yield Match(Table.RULES, order[name], guard + fields + state), Does(actions, cookie)


_ALLOWS, _DENIES = load(DECISION, ALLOWED), load(DECISION, DENIED)
_DECIDES = {
    (Action.ALLOW, False): (("", _ALLOWS),),
    (Action.DENY, False): (("", _DENIES),),
    (Action.DENY, True): (("", f"{_DENIES},{_LOGS}"),),
    # Of what is allowed, new connections: what a change of rules lets go on is not told again.
    (Action.ALLOW, True): ((",ct_state=+trk+new", f"{_ALLOWS},{_LOGS}"), (",ct_state=-new", _ALLOWS)),
}
"""By action, and whether it is logged: conditions besides the rule's, and what is done then."""


def _fields(shape: Shape, key: Key, peer: str) -> Iterator[str]:
    """The conditions of one entry, each with a comma before it; several where one flow cannot say it."""
    rest = list(key)
    address = rest.pop(0) if shape.length is not None else None
    protocol = rest.pop(0) if shape.protocol else None
    ports: Iterable[str] = (f",tp_dst={rest[0]}",) if shape.port else ("",)
    if shape.ports is not None:
        protocol, low, high = shape.ports
        ports = [f",tp_dst={value}/0x{mask:x}" for value, mask in masks(low, high)]
    if shape.version is None and protocol is None:
        yield ""
        return
    for version in (4, 6) if shape.version is None else (shape.version,):
        text = f",{_TYPES[version]}"
        if address is not None and shape.length is not None:
            text += "," + _peer(version, peer, address, shape.length)
        if protocol is not None:
            text += f",nw_proto={protocol}"
        for port in ports:
            yield text + port


def _peer(version: int, peer: str, bits: int, length: int) -> str:
    """Not by ipaddress, which is ten times as slow: there may be tens of thousands."""
    family, size = (socket.AF_INET, 4) if version == 4 else (socket.AF_INET6, 16)
    field = f"nw_{peer}" if version == 4 else f"ipv6_{peer}"
    address = socket.inet_ntop(family, bits.to_bytes(size, "big"))
    return f"{field}={address}" + (f"/{length}" if length < size * 8 else "")


def masks(low: int, high: int) -> Iterator[tuple[int, int]]:
    """``low`` to ``high`` (16 bits) as values with masks: the fewest that cover just that."""
    while low <= high:
        size = 1 << 16 if low == 0 else low & -low
        while low + size - 1 > high:
            size >>= 1
        yield low, 0xFFFF & ~(size - 1)
        low += size


def set_flows(number: int, members: Iterable[Network], table: Table) -> Iterator[tuple[Match, Does]]:
    peer = "src" if table is Table.SETS_SOURCE else "dst"
    member = Does(load(MEMBER, 1))
    for network in members:
        version = network.version
        fields = _TYPES[version]
        if network.prefixlen:
            fields += "," + _peer(version, peer, int(network.network_address), network.prefixlen)
        yield Match(table, 1, f"{SET}={number},{fields}"), member
