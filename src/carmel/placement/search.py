"""Which moves, one after the other, make something possible: the fewest, each possible when its turn comes."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from carmel.placement.layout import Layout
from carmel.placement.model import Budget
from carmel.placement.moving import Step, after, alike, steps
from carmel.placement.occupancy import Occupancy

MOST_STATES = 4000
"""How many states one search looks at: a second or less."""

BEAM = 4
"""How many states of a depth ``descend`` goes on from."""

Path = tuple[Step, ...]


@dataclass
class Search:
    """Iterative deepening over sequences of moves. ``source``: only VMs with memory on that node are moved, which is
    all that matters where the goal is room on it and the other nodes have some. ``staying`` are never moved."""

    start: Occupancy
    goal: Callable[[Occupancy], bool]
    budget: Budget
    source: int | None = None
    staying: frozenset[str] = frozenset()
    exhausted: bool = False
    """It ended because it had looked at ``MOST_STATES``, not because there were no more."""
    missing: Callable[[Occupancy], int] | None = None
    """How far from the goal: what ``descend`` follows."""
    _states: int = 0
    _alike: dict[str, tuple[object, ...]] = field(default_factory=dict)
    _seen: dict[object, list[tuple[int, int]]] = field(default_factory=dict)

    def run(self) -> Path | None:
        reached = -1
        for depth in range(1, self.budget.moves + 1):
            self._seen = {}
            found = self._deeper(self.start, depth, self.budget.memory_bytes, ())
            if found is not None or self.exhausted or len(self._seen) == reached:
                return found
            reached = len(self._seen)
        return None

    def descend(self) -> Path | None:
        """The few most promising states of each depth only: finds what a large machine has too many ways for."""
        assert self.missing is not None
        self._seen = {}
        beam: list[tuple[Occupancy, int, Path]] = [(self.start, self.budget.memory_bytes, ())]
        for depth in range(self.budget.moves, 0, -1):
            found: list[tuple[int, int, int, tuple[Occupancy, int, Path]]] = []
            for occupancy, memory, path in beam:
                for step in self._steps(occupancy, memory, path[-1].uid if path else None):
                    longer = (*path, step)
                    if not self._new(longer, depth, memory - step.bytes):
                        continue
                    then = after(occupancy, step)
                    if self.goal(then):
                        return longer
                    state = (then, memory - step.bytes, longer)
                    found.append((self.missing(then), step.bytes - memory, len(found), state))
            beam = [state for *_, state in heapq.nsmallest(BEAM, found)]
            self._states += len(found)
            if not beam or self._states >= MOST_STATES:
                break
        return None

    def _deeper(self, occupancy: Occupancy, depth: int, memory: int, path: Path) -> Path | None:
        for step in self._steps(occupancy, memory, path[-1].uid if path else None):
            longer = (*path, step)
            if not self._new(longer, depth, memory - step.bytes):
                continue
            if self._states >= MOST_STATES:
                self.exhausted = True
                return None
            self._states += 1
            then = after(occupancy, step)
            if self.goal(then):
                return longer
            found = self._deeper(then, depth - 1, memory - step.bytes, longer) if depth > 1 else None
            if found is not None or self.exhausted:
                return found
        return None

    def _steps(self, occupancy: Occupancy, memory: int, last: str | None) -> Iterator[Step]:
        """Of VMs that are alike only the first; what was moved just now could have gone there at once."""
        met: set[tuple[object, ...]] = set()
        for uid, placement in sorted(occupancy.placements.items()):
            if uid == last or uid in self.staying or not placement.request.movable:
                continue
            if self.source is not None and self.source not in placement.memory_nodes:
                continue
            like = alike(occupancy, uid)
            if like not in met:
                met.add(like)
                yield from (step for step in steps(occupancy, uid) if step.bytes <= memory)

    def _new(self, path: Path, depth: int, memory: int) -> bool:
        """This state was not met before with as many moves and as much memory left."""
        places: dict[str, Layout] = {step.uid: step.layout for step in path}
        key = frozenset(Counter((self._like_at_start(uid), layout) for uid, layout in places.items()).items())
        visits = self._seen.setdefault(key, [])
        if any(depth <= moves and memory <= size for moves, size in visits):
            return False
        visits.append((depth, memory))
        return True

    def _like_at_start(self, uid: str) -> tuple[object, ...]:
        if uid not in self._alike:
            self._alike[uid] = alike(self.start, uid)
        return self._alike[uid]
