"""Counters, read from what the kernel lists, and whose they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from carmel.network.firewall.lookups import Lookup
from carmel.network.firewall.model import Count, RuleRef
from carmel.network.firewall.nft_attributes import attributes, listed, words
from carmel.network.firewall.nft_keys import KeyLayout
from carmel.network.firewall.nft_rules import Counted

_VERDICTS = {0: "drop", 1: "accept"}
_COMMENT = 0
"""NFTNL_UDATA_RULE_COMMENT."""


def counts(found: Iterable[Counted], lookups: Mapping[str, Lookup]) -> dict[RuleRef, Count]:
    """``lookups`` by the names of their maps; a lookup without a key is a rule with that name as its comment."""
    sums: dict[RuleRef, Count] = {}
    for one in found:
        lookup = lookups.get(one.name)
        outcome = None if lookup is None else lookup.entries.get(one.key)
        if outcome is not None:
            before = sums.get(outcome.rule, Count(0, 0))
            sums[outcome.rule] = Count(before.packets + one.decided.packets, before.bytes + one.decided.bytes)
    return sums


def counted_elements(body: memoryview, name: str, key: KeyLayout) -> Iterator[Counted]:
    """Of one message that lists the elements of the map ``name`` (NFTA_SET_ELEM_...): those that counted anything."""
    for _, element in listed(attributes(body).get(3, memoryview(b""))):
        parts = attributes(element)
        found = _count(parts[7]) if 7 in parts else None
        if found is not None and found.packets:
            value = bytes(attributes(parts[1])[1])
            yield Counted(name, found, key.unpack(value), _verdict(attributes(parts[2])[2]))


def counted_rule(body: memoryview) -> Counted | None:
    """Of one message that is a rule (NFTA_RULE_...): what its counter says, if it has one and a comment."""
    parts = attributes(body)
    comment = _comment(parts[7]) if 7 in parts else None
    if comment is None:
        return None
    for _, expression in listed(parts.get(4, memoryview(b""))):
        found = _count(expression)
        if found is not None and found.packets:
            return Counted(comment, found, chain=words(parts[2]))
    return None


def _count(expression: memoryview) -> Count | None:
    parts = attributes(expression)
    if 2 not in parts or words(parts[1]) != "counter":
        return None
    numbers = attributes(parts[2])
    if 1 not in numbers or 2 not in numbers:
        return None
    return Count(int.from_bytes(numbers[2]), int.from_bytes(numbers[1]))


def _verdict(data: memoryview) -> str:
    parts = attributes(data)
    return words(parts[2]) if 2 in parts else _VERDICTS.get(int.from_bytes(parts[1]), "")


def _comment(userdata: memoryview) -> str | None:
    at = 0
    while at + 2 <= len(userdata):
        kind, length = userdata[at], userdata[at + 1]
        if kind == _COMMENT:
            return words(userdata[at + 2 : at + 2 + length])
        at += 2 + length
    return None
