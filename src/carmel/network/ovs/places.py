"""Priorities for lookups that are asked in order, such that what stays in order keeps its own. Pure.

A flow is known by its priority too: with another it is another flow, which has counted nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

FIRST, LAST = 65_000, 1
_STEP = 64
"""So many can come between two that are there."""


def places(names: Sequence[str], before: Mapping[str, int]) -> dict[str, int]:
    """A priority for each of ``names``, the first has the highest. Those of ``before`` are kept as far as their order
    is still the same and there is room between them; else all are given out anew."""
    found: dict[str, int] = {}
    waiting: list[str] = []
    above = FIRST + 1
    for name in names:
        kept = before.get(name)
        if kept is None or kept >= above - len(waiting):
            waiting.append(name)
            continue
        _between(found, waiting, above, kept)
        found[name] = above = kept
        waiting = []
    if above - LAST < len(waiting):
        step = max(1, min(_STEP, (FIRST - LAST) // max(1, len(names))))
        return {name: FIRST - step * index for index, name in enumerate(names)}
    _between(found, waiting, above, max(LAST - 1, above - _STEP * (len(waiting) + 1)))
    return {name: found[name] for name in names}


def _between(found: dict[str, int], waiting: Sequence[str], above: int, below: int) -> None:
    """Spread evenly."""
    for index, name in enumerate(waiting, 1):
        found[name] = above - (above - below) * index // (len(waiting) + 1)
