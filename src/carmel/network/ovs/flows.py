"""Flows as values, and the one bundle that leads from one set of them to another (ovs-ofctl(8), ovs-fields(7)). Pure.

The words of matches and actions are ovs-ofctl's. A match is its text: whoever makes flows writes one match one way.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple


class Match(NamedTuple):
    """What a flow is known by: its table, its priority (the highest number is asked first), and its conditions."""

    table: int
    priority: int
    fields: str = ""


class Does(NamedTuple):
    """What a flow does. ``cookie`` is found again with its counters."""

    actions: str
    cookie: int = 0


Flows = Mapping[Match, Does]


class FlowCount(NamedTuple):
    cookie: int
    packets: int
    bytes: int


def afresh(tables: Collection[int], wanted: Flows) -> Iterator[str]:
    """Lines of a bundle that puts ``wanted`` in place of whatever is in ``tables``."""
    yield from (f"delete table={table}" for table in sorted(tables))
    yield from (_added(match, does) for match, does in wanted.items())


def change(old: Flows, new: Flows) -> Iterator[str]:
    """Lines of a bundle that leads from ``old``, which is loaded, to ``new``; none if they are the same.

    What only does something else from now on keeps its counters (OpenFlow 1.4, 6.4: no flag RESET_COUNTS).
    """
    if old is new:
        return
    yield from (_deleted(match) for match in old if match not in new)
    yield from (_added(match, does) for match, does in new.items() if old.get(match) != does)


def _added(match: Match, does: Does) -> str:
    fields = f",{match.fields}" if match.fields else ""
    cookie = f"cookie=0x{does.cookie:x}," if does.cookie else ""
    return f"add {cookie}table={match.table},priority={match.priority}{fields},actions={does.actions}"


def _deleted(match: Match) -> str:
    fields = f",{match.fields}" if match.fields else ""
    return f"delete_strict table={match.table},priority={match.priority}{fields}"


def counts(listed: str) -> Iterator[FlowCount]:
    """What ``ovs-ofctl dump-flows`` says, flow by flow."""
    for line in listed.splitlines():
        words = dict(word.strip().partition("=")[::2] for word in line.split(",")[:6])
        if "cookie" in words and "n_packets" in words:
            yield FlowCount(int(words["cookie"], 16), int(words["n_packets"]), int(words["n_bytes"]))
