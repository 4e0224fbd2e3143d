"""Counters of rules, read from what ``nft list table`` says (libnftables-json(5))."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from carmel.network.firewall.lookups import Lookup
from carmel.network.firewall.model import Count, RuleRef

_NUMBERS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "sctp": 132}


def counts(listed: Iterable[Mapping[str, Any]], lookups: Mapping[str, Lookup]) -> dict[RuleRef, Count]:
    """``lookups`` by the names of their maps; a lookup without a key is a rule with that name as its comment."""
    found: dict[RuleRef, Count] = {}
    for name, key, count in _counted(listed):
        lookup = lookups.get(name)
        outcome = None if lookup is None else lookup.entries.get(key)
        if outcome is not None and count.packets:
            before = found.get(outcome.rule, Count(0, 0))
            found[outcome.rule] = Count(before.packets + count.packets, before.bytes + count.bytes)
    return found


def _counted(listed: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, tuple[int, ...], Count]]:
    for one in listed:
        if (map_ := one.get("map")) is not None:
            for element in map_.get("elem") or []:
                inner = element[0].get("elem") if isinstance(element[0], dict) else None
                if inner is not None and "counter" in inner:
                    yield map_["name"], _key(inner["val"]), _count(inner["counter"])
        elif (rule := one.get("rule")) is not None and "comment" in rule:
            for statement in rule["expr"]:
                if "counter" in statement:
                    yield rule["comment"], (), _count(statement["counter"])


def _count(counter: Mapping[str, int]) -> Count:
    return Count(counter["packets"], counter["bytes"])


def _key(value: Any) -> tuple[int, ...]:
    parts = value["concat"] if isinstance(value, dict) else [value]
    return tuple(_number(part) for part in parts)


def _number(part: int | str) -> int:
    if isinstance(part, int):
        return part
    if part in _NUMBERS:
        return _NUMBERS[part]
    return int(part) if part.isdigit() else int(ipaddress.ip_address(part))
