"""From matches in order to lookups: hash tables that together answer "which rule is the first to match".

Rules are asked in order, and a list of ten thousand would be slow. But most rules do not overlap: the order between
those does not matter, so all matches of one *shape* (the same length of prefix, the same kind of port) go into one hash
table, whose key is the packet's address cut to that length with its protocol and port. A packet asks one table a shape
instead of one rule after another. (The idea is known as tuple space search: Srinivasan, Suri, Varghese, "Packet
Classification using Tuple Space Search", SIGCOMM 1999.)

Order is kept by where a match is put: behind the last table that holds something of an earlier rule that it overlaps,
of another shape. Two different keys of one table never match the same packet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from carmel.network.firewall.matches import InSet, Match, Prefix, Service
from carmel.network.firewall.model import RuleRef
from carmel.resources.firewallpolicy import Action

_LOOK_BACK = 64
"""Tables that are examined for overlaps. Behind more than that a match goes to the end, which is always right."""

Key = tuple[int, ...]
"""What of address, protocol and port the shape has, in this order."""


class Shape(NamedTuple):
    """How a table is asked. First the guards: ``version`` (``None``: both), ``members`` (a set that the address is in),
    ``ports`` (protocol, first and last port). Then the key's parts: the address cut to ``length`` bits, ``protocol``,
    ``port``. A shape without parts has one entry, for whatever passes the guards."""

    version: int | None = None
    members: str | None = None
    ports: tuple[int, int, int] | None = None
    length: int | None = None
    protocol: bool = False
    port: bool = False


class Outcome(NamedTuple):
    """What a match leads to."""

    rule: RuleRef
    action: Action
    log: bool = False


@dataclass(frozen=True, slots=True)
class Lookup:
    shape: Shape
    entries: Mapping[Key, Outcome]


def arrange(matches: list[tuple[Match, Outcome]]) -> tuple[tuple[Lookup, ...], frozenset[int]]:
    """The lookups to make one after another, the first hit decides; and the positions of rules that can decide.

    A rule is missing among the latter if each of its matches lies within one of an earlier rule.
    """
    tables: list[_Table] = []
    last_of_shape: dict[Shape, int] = {}
    deciding = set[int]()
    shapes = _Shapes()
    for match, outcome in matches:
        shape, key = shapes.placed(match)
        start = _first_place(tables, shape, key, match)
        if start is None:
            continue
        deciding.add(outcome.rule.position)
        at = last_of_shape.get(shape, -1)
        if at < start:
            at = last_of_shape[shape] = len(tables)
            tables.append(_Table(shape))
        tables[at].put(key, match, outcome)
    return tuple(Lookup(table.shape, table.entries) for table in tables), frozenset(deciding)


def _first_place(tables: list[_Table], shape: Shape, key: Key, match: Match) -> int | None:
    """The first table that the match may be put into; ``None`` if one entry of an earlier rule matches all it does."""
    place = max(len(tables) - _LOOK_BACK, 0)
    found = False
    for index in range(len(tables) - 1, place - 1, -1):
        table = tables[index]
        if table.shape is shape:
            if key in table.entries:
                return None
        elif table.overlaps(match):
            if not found:
                place, found = index + 1, True
            if table.covers(match):
                return None
    return place


class _Shapes:
    """Shapes that are equal are the same object here, so that they are cheap to compare."""

    def __init__(self) -> None:
        self._known: dict[Shape, Shape] = {}
        self._of_prefix: dict[tuple[int, int], Shape] = {}

    def placed(self, match: Match) -> tuple[Shape, Key]:
        peer, (protocol, ports) = match
        if not isinstance(peer, Prefix) or protocol is None or ports is None or ports[0] != ports[1] or not peer.length:
            shape, key = _placed(match)
            return self._known.setdefault(shape, shape), key
        # By far the most: one network and one port.
        version, length, bits = peer
        known = self._of_prefix.get((version, length))
        if known is None:
            shape = Shape(version, None, None, length, protocol=True, port=True)
            known = self._of_prefix[version, length] = self._known.setdefault(shape, shape)
        return known, (bits, protocol, ports[0])


def _placed(match: Match) -> tuple[Shape, Key]:
    peer, (protocol, ports) = match
    version = peer.version if peer is not None else None
    members = peer.name if isinstance(peer, InSet) else None
    length = peer.length if isinstance(peer, Prefix) and peer.length > 0 else None
    key: list[int] = [peer.bits] if isinstance(peer, Prefix) and length is not None else []
    if protocol is not None and ports is not None and ports[0] != ports[1]:
        return Shape(version, members, (protocol, *ports), length), tuple(key)
    if protocol is not None:
        key.append(protocol)
    if ports is not None:
        key.append(ports[0])
    return Shape(version, members, None, length, protocol is not None, ports is not None), tuple(key)


@dataclass(slots=True)
class _Table:
    shape: Shape
    entries: dict[Key, Outcome] = field(default_factory=dict)
    _cut: dict[int, dict[int, set[Service]]] = field(default_factory=dict)
    """For a length of prefix: the addresses of this table cut to it, each with the services it has there."""
    _matches: list[Match] = field(default_factory=list)

    def put(self, key: Key, match: Match, outcome: Outcome) -> None:
        self.entries[key] = outcome
        self._matches.append(match)
        for length, at in self._cut.items():
            at.setdefault(_bits(match, length), set()).add(match.service)

    def overlaps(self, match: Match) -> bool:
        """Whether some packet may match both. May be true in vain: for two sets, and for ranges of ports."""
        if not self._versions_meet(match):
            return False
        length = min(self.shape.length or 0, _length(match))
        services = self._at(length).get(_bits(match, length))
        if not services:
            return False
        if match.service in services:
            return True
        if self.shape.port and match.service.ports is not None and match.service.ports[0] == match.service.ports[1]:
            return False
        return any(_services_meet(one, match.service) for one in services)

    def covers(self, match: Match) -> bool:
        """Whether one entry here matches all that ``match`` does."""
        if self.shape.version is not None and (match.peer is None or match.peer.version != self.shape.version):
            return False
        if self.shape.members is not None:
            if not isinstance(match.peer, InSet) or match.peer.name != self.shape.members:
                return False
        elif (self.shape.length or 0) > _length(match):
            return False
        bits = [] if self.shape.length is None else [_bits(match, self.shape.length)]
        protocol, ports = match.service
        if self.shape.ports is not None:
            of, low, high = self.shape.ports
            within = protocol == of and ports is not None and low <= ports[0] and ports[1] <= high
            return within and tuple(bits) in self.entries
        if self.shape.protocol:
            if protocol is None:
                return False
            bits.append(protocol)
        if self.shape.port:
            if ports is None or ports[0] != ports[1]:
                return False
            bits.append(ports[0])
        return tuple(bits) in self.entries

    def _versions_meet(self, match: Match) -> bool:
        return self.shape.version is None or match.peer is None or match.peer.version == self.shape.version

    def _at(self, length: int) -> dict[int, set[Service]]:
        if length not in self._cut:
            at: dict[int, set[Service]] = {}
            for match in self._matches:
                at.setdefault(_bits(match, length), set()).add(match.service)
            self._cut[length] = at
        return self._cut[length]


def _length(match: Match) -> int:
    return match.peer.length if isinstance(match.peer, Prefix) else 0


def _bits(match: Match, length: int) -> int:
    """The match's address cut to ``length``, which is not longer than its own."""
    if length == 0 or not isinstance(match.peer, Prefix):
        return 0
    shift = match.peer.width - length
    return match.peer.bits >> shift << shift


def _services_meet(one: Service, other: Service) -> bool:
    if one.protocol is None or other.protocol is None:
        return True
    if one.protocol != other.protocol:
        return False
    if one.ports is None or other.ports is None:
        return True
    return one.ports[0] <= other.ports[1] and other.ports[0] <= one.ports[1]
