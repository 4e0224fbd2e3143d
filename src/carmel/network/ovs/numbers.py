"""Numbers for names, so that what keeps its name keeps its number. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping


def numbered(names: Collection[str], before: Mapping[str, int]) -> dict[str, int]:
    """Each of ``names`` gets a number of its own, from 1: the one of ``before``, else the lowest that is free."""
    kept = {name: before[name] for name in names if name in before}
    taken = set(kept.values())
    free = (number for number in itertools.count(1) if number not in taken)
    return kept | {name: next(free) for name in names if name not in kept}
