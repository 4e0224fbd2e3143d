"""What is in an nftables table, as values, and the one transaction that leads from one such state to another.

The words are those of libnftables-json(5).
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
ElementKey = tuple[int | str, ...]

FAMILY = "bridge"
_ADDRESSES = {"ipv4_addr": (socket.AF_INET, 4), "ipv6_addr": (socket.AF_INET6, 16)}
_CHUNK = 4096
"""Elements a command: nft sends each command's in as few messages as fit."""


@dataclass(frozen=True, slots=True)
class SetState:
    """``type`` is the elements' type, ``elements`` are as JSON has them, by something to compare them by."""

    type: str
    elements: Mapping[str, Any]
    interval: bool = False


@dataclass(frozen=True, slots=True)
class MapState:
    """A verdict map: ``accept``, ``drop`` or the name of a chain to go to, by a key of these ``types``."""

    types: tuple[str, ...]
    entries: Mapping[ElementKey, str]
    counted: bool = False


@dataclass(frozen=True, slots=True)
class ChainState:
    """``hook`` is what makes it a base chain. Rules are lists of statements."""

    rules: tuple[Json, ...]
    hook: Json | None = None


@dataclass(frozen=True, slots=True)
class TableState:
    sets: Mapping[str, SetState] = field(default_factory=dict)
    maps: Mapping[str, MapState] = field(default_factory=dict)
    chains: Mapping[str, ChainState] = field(default_factory=dict)


EMPTY_TABLE = TableState()


def afresh(table: str, state: TableState) -> Json:
    """Replaces the whole table, whatever is in it."""
    named = {"family": FAMILY, "name": table}
    # To delete what is not there is an error; to add what is there is none.
    commands = [{"add": {"table": named}}, {"delete": {"table": named}}, {"add": {"table": named}}]
    return {"nftables": [*commands, *_changes(table, EMPTY_TABLE, state)]}


def change(table: str, old: TableState, new: TableState) -> Json | None:
    """Leads from ``old``, which is loaded, to ``new``; ``None`` if they are the same."""
    commands = list(_changes(table, old, new))
    return {"nftables": commands} if commands else None


def _changes(table: str, old: TableState, new: TableState) -> Iterator[Json]:
    """In an order in which nothing names what is not there yet, and nothing is deleted while it is named."""
    to = _Commands(table)
    yield from _new_containers(to, old, new)
    for name, wanted_set in new.sets.items():
        yield from _set_elements(to, name, old.sets.get(name), wanted_set)
    for name, wanted_map in new.maps.items():
        yield from _map_elements(to, name, old.maps.get(name), wanted_map)
    for name, chain in new.chains.items():
        before = old.chains.get(name)
        if before is None or before.rules != chain.rules:
            if before is not None:
                yield to.flush(name)
            yield from (to.add("rule", chain=name, **rule) for rule in chain.rules)
    yield from _old_containers(to, old, new)


def _new_containers(to: _Commands, old: TableState, new: TableState) -> Iterator[Json]:
    """A container's name says its type, so that one that is there already has the right one."""
    for name, chain in new.chains.items():
        if name not in old.chains:
            yield to.add("chain", name=name, **(chain.hook or {}))
    for name, one in new.sets.items():
        if name not in old.sets:
            flags = {"flags": ["interval"]} if one.interval else {}
            yield to.add("set", name=name, type=one.type, **flags)
    for name, map_ in new.maps.items():
        if name not in old.maps:
            counted = {"stmt": [{"counter": None}]} if map_.counted else {}
            types = map_.types[0] if len(map_.types) == 1 else list(map_.types)
            yield to.add("map", name=name, type=types, map="verdict", **counted)


def _old_containers(to: _Commands, old: TableState, new: TableState) -> Iterator[Json]:
    gone = [name for name in old.chains if name not in new.chains]
    for name in gone:
        yield to.flush(name)
    for name in old.maps:
        if name not in new.maps:
            yield to.delete("map", name)
    for name in old.sets:
        if name not in new.sets:
            yield to.delete("set", name)
    for name in gone:
        yield to.delete("chain", name)


def _set_elements(to: _Commands, name: str, old: SetState | None, new: SetState) -> Iterator[Json]:
    before = {} if old is None else old.elements
    if before is new.elements:
        return
    yield from to.elements("delete", name, (value for key, value in before.items() if key not in new.elements))
    yield from to.elements("add", name, (value for key, value in new.elements.items() if key not in before))


def _map_elements(to: _Commands, name: str, old: MapState | None, new: MapState) -> Iterator[Json]:
    before = {} if old is None else old.entries
    if before is new.entries:
        return
    changed = {key: verdict for key, verdict in new.entries.items() if before.get(key) != verdict}
    gone = {key: verdict for key, verdict in before.items() if key in changed or key not in new.entries}
    yield from to.elements("delete", name, _elements(new.types, gone))
    yield from to.elements("add", name, _elements(new.types, changed))


def _elements(types: tuple[str, ...], entries: Mapping[ElementKey, str]) -> Iterator[list[Any]]:
    verdicts = {verdict: verdict_json(verdict) for verdict in set(entries.values())}
    address = _ADDRESSES.get(types[0])
    for key, verdict in entries.items():
        parts: Sequence[Any] = key if address is None else [_address(address, key[0]), *key[1:]]
        yield [parts[0] if len(parts) == 1 else {"concat": parts}, verdicts[verdict]]


def _address(kind: tuple[socket.AddressFamily, int], value: int | str) -> str:
    """Addresses are numbers here. Not by ipaddress, which is ten times as slow: there may be tens of thousands."""
    assert isinstance(value, int)
    family, size = kind
    return socket.inet_ntop(family, value.to_bytes(size))


def verdict_json(verdict: str) -> Json:
    return {verdict: None} if verdict in {"accept", "drop"} else {"goto": {"target": verdict}}


class _Commands:
    def __init__(self, table: str) -> None:
        self._at = {"family": FAMILY, "table": table}

    def add(self, kind: str, **values: Any) -> Json:
        return {"add": {kind: {**self._at, **values}}}

    def delete(self, kind: str, name: str) -> Json:
        return {"delete": {kind: {**self._at, "name": name}}}

    def flush(self, chain: str) -> Json:
        return {"flush": {"chain": {**self._at, "name": chain}}}

    def elements(self, verb: str, name: str, elements: Iterable[Any]) -> Iterator[Json]:
        batch: list[Any] = []
        for one in elements:
            batch.append(one)
            if len(batch) == _CHUNK:
                yield {verb: {"element": {**self._at, "name": name, "elem": batch}}}
                batch = []
        if batch:
            yield {verb: {"element": {**self._at, "name": name, "elem": batch}}}
