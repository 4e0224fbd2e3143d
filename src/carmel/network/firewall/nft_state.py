"""What is in an nftables table, as values, and the commands that lead from one such state to another."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from carmel.network.firewall.model import Count
from carmel.network.firewall.nft_rules import Counted, Rule

ElementKey = tuple[int | str, ...]


class Interval(NamedTuple):
    """Addresses from ``first`` up to, but without, ``after``; ``None``: to the last there is."""

    first: bytes
    after: bytes | None


@dataclass(frozen=True, slots=True)
class SetState:
    """``elements`` are of the kind ``type``: each a value, or intervals that do not touch one another."""

    type: str
    elements: frozenset[bytes | Interval]
    interval: bool = False


@dataclass(frozen=True, slots=True)
class MapState:
    """A verdict map: ``accept``, ``drop`` or the name of a chain to go to, by a key of these ``types``."""

    types: tuple[str, ...]
    entries: Mapping[ElementKey, str]
    counted: bool = False


@dataclass(frozen=True, slots=True)
class Hook:
    """Where packets come into a chain: ``number`` of the bridge family's (linux/netfilter_bridge.h)."""

    number: int
    priority: int


@dataclass(frozen=True, slots=True)
class ChainState:
    """``hook`` is what makes it a base chain."""

    rules: tuple[Rule, ...]
    hook: Hook | None = None


@dataclass(frozen=True, slots=True)
class TableState:
    sets: Mapping[str, SetState] = field(default_factory=dict)
    maps: Mapping[str, MapState] = field(default_factory=dict)
    chains: Mapping[str, ChainState] = field(default_factory=dict)


EMPTY_TABLE = TableState()


# -- commands ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class AddTable:
    """No error if it is there already."""


@dataclass(frozen=True, slots=True)
class DeleteTable:
    """With all that is in it."""


@dataclass(frozen=True, slots=True)
class AddChain:
    name: str
    hook: Hook | None = None


@dataclass(frozen=True, slots=True)
class FlushChain:
    name: str


@dataclass(frozen=True, slots=True)
class DeleteChain:
    name: str


@dataclass(frozen=True, slots=True)
class AddSet:
    name: str
    type: str
    interval: bool = False


@dataclass(frozen=True, slots=True)
class AddMap:
    name: str
    types: tuple[str, ...]
    counted: bool = False


@dataclass(frozen=True, slots=True)
class DeleteSet:
    """Or a map."""

    name: str


@dataclass(frozen=True, slots=True)
class SetElements:
    """Added to the set, or with ``delete`` taken from it."""

    name: str
    elements: Collection[bytes | Interval]
    delete: bool = False


@dataclass(frozen=True, slots=True)
class MapElements:
    """Added to the map, or with ``delete`` taken from it. ``counts`` are where their counters begin, if not at 0."""

    name: str
    types: tuple[str, ...]
    entries: Mapping[ElementKey, str]
    delete: bool = False
    counts: Mapping[ElementKey, Count] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AddRule:
    """At the end of ``chain``. ``count`` is where its counter begins."""

    chain: str
    rule: Rule
    count: Count | None = None


Command = (
    AddTable | DeleteTable | AddChain | FlushChain | DeleteChain | AddSet | AddMap | DeleteSet | SetElements
    | MapElements | AddRule
)  # fmt: skip


def afresh(state: TableState, counted: Iterable[Counted] = ()) -> Iterator[Command]:
    """Replaces the whole table, whatever is in it. Counters of what is ``counted`` go on from there, where the same
    key has the same verdict."""
    # To delete what is not there is an error; to add what is there is none.
    yield from (AddTable(), DeleteTable(), AddTable())
    maps: dict[str, dict[ElementKey, Count]] = {}
    rules: dict[tuple[str, str], Count] = {}
    for one in counted:
        if one.chain:
            rules[one.chain, one.name] = one.decided
        elif one.name in state.maps and state.maps[one.name].entries.get(one.key) == one.verdict:
            maps.setdefault(one.name, {})[one.key] = one.decided
    for command in changes(EMPTY_TABLE, state):
        if isinstance(command, MapElements) and command.name in maps:
            yield MapElements(command.name, command.types, command.entries, counts=maps[command.name])
        elif isinstance(command, AddRule) and command.rule.comment is not None:
            yield AddRule(command.chain, command.rule, rules.get((command.chain, command.rule.comment)))
        else:
            yield command


def changes(old: TableState, new: TableState) -> Iterator[Command]:
    """Leads from ``old``, which is loaded, to ``new``; nothing if they are the same. What is the same object in both is
    not looked into.

    In an order in which nothing names what is not there yet, and nothing is deleted while it is named.
    """
    yield from _new_containers(old, new)
    for name, wanted_set in new.sets.items():
        yield from _set_elements(name, old.sets.get(name), wanted_set)
    for name, wanted_map in new.maps.items():
        yield from _map_elements(name, old.maps.get(name), wanted_map)
    for name, chain in new.chains.items():
        before = old.chains.get(name)
        if before is chain or (before is not None and before.rules == chain.rules):
            continue
        if before is not None:
            yield FlushChain(name)
        yield from (AddRule(name, rule) for rule in chain.rules)
    yield from _old_containers(old, new)


def _new_containers(old: TableState, new: TableState) -> Iterator[Command]:
    """A container's name says its type, so that one that is there already has the right one."""
    yield from (AddChain(name, chain.hook) for name, chain in new.chains.items() if name not in old.chains)
    yield from (AddSet(name, one.type, one.interval) for name, one in new.sets.items() if name not in old.sets)
    yield from (AddMap(name, one.types, one.counted) for name, one in new.maps.items() if name not in old.maps)


def _old_containers(old: TableState, new: TableState) -> Iterator[Command]:
    gone: Sequence[str] = [name for name in old.chains if name not in new.chains]
    yield from (FlushChain(name) for name in gone)
    yield from (DeleteSet(name) for name in old.maps if name not in new.maps)
    yield from (DeleteSet(name) for name in old.sets if name not in new.sets)
    yield from (DeleteChain(name) for name in gone)


def _set_elements(name: str, old: SetState | None, new: SetState) -> Iterator[Command]:
    before: frozenset[bytes | Interval] = frozenset() if old is None else old.elements
    if gone := before - new.elements:
        yield SetElements(name, gone, delete=True)
    if come := new.elements - before:
        yield SetElements(name, come)


def _map_elements(name: str, old: MapState | None, new: MapState) -> Iterator[Command]:
    if old is None:
        if new.entries:
            yield MapElements(name, new.types, new.entries)
        return
    before = old.entries
    if before is new.entries:
        return
    come = {key: verdict for key, verdict in new.entries.items() if before.get(key) != verdict}
    gone = {key: verdict for key, verdict in before.items() if key in come or key not in new.entries}
    if gone:
        yield MapElements(name, new.types, gone, delete=True)
    if come:
        yield MapElements(name, new.types, come)
