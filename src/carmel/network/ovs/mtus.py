"""The MTU of uplinks below Open vSwitch: as much as their networks need, what they had afterwards. Pure.

What an uplink had is noted in its row before it is changed, with what it is to have: whenever that ends too early, the
next time goes on. An MTU that is none of those was set by somebody else, and is what the uplink has of its own. Open
vSwitch itself is not asked for it (``mtu_request``): it would have no less than that, and keep it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from carmel.network.dataplane import NetworkPlan
from carmel.network.host.kernel import Link
from carmel.network.host.steps import SetMtu


@dataclass(frozen=True, slots=True)
class NotedMtu:
    """``had``: of its own, in bytes. ``given``: what it may have of us."""

    had: int
    given: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NoteMtu:
    """In the row of the interface ``name``."""

    name: str
    mtu: NotedMtu


def needed(networks: Iterable[NetworkPlan]) -> dict[str, int]:
    """By uplink."""
    found: dict[str, int] = {}
    for network in networks:
        for name in () if network.uplink is None else network.uplink.members:
            found[name] = max(network.mtu, found.get(name, 0))
    return found


def to_give(
    networks: Sequence[NetworkPlan], links: Mapping[str, Link], noted: Mapping[str, NotedMtu]
) -> Iterator[tuple[NoteMtu, SetMtu]]:
    """What to note, and what to do after it."""
    for name, mtu in needed(networks).items():
        if (link := links.get(name)) is None:
            continue
        had = _had(link, noted.get(name))
        if (wanted := max(had, mtu)) != link.mtu:
            yield NoteMtu(name, NotedMtu(had, (link.mtu, wanted))), SetMtu(name, wanted)


def to_give_back(names: Iterable[str], links: Mapping[str, Link], noted: Mapping[str, NotedMtu]) -> Iterator[SetMtu]:
    """Before their rows are removed."""
    for name in names:
        link = links.get(name)
        if link is not None and (had := _had(link, noted.get(name))) != link.mtu:
            yield SetMtu(name, had)


def _had(link: Link, noted: NotedMtu | None) -> int:
    return noted.had if noted is not None and link.mtu in noted.given else link.mtu
