"""Guest nodes that are given, packed into the host's: each has its memory on one, distinct ones where that can be, and
its vCPUs on the same where that can be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from carmel.placement.choice import nearness
from carmel.placement.layout import Layout, Part
from carmel.placement.room import Rooms
from carmel.resources.virtualmachine import CpuPolicy

MOST_STEPS = 20_000
"""Packing is hard in general (it is bin packing); a handful of guest nodes is not. Beyond so many steps it gives up."""


class TooComplex(Exception):
    """Neither found nor excluded within ``MOST_STEPS``."""


@dataclass
class _Search:
    """Depth first, largest guest node first; failed states are remembered by what was left of the host, whichever node
    it was left on."""

    rooms: Rooms
    cpus: dict[int, int]
    memory: dict[int, int]
    distinct: bool
    chosen: dict[int, int] = field(default_factory=dict)
    failed: set[tuple[int, tuple[tuple[int, int, bool], ...]]] = field(default_factory=set)
    steps: int = 0

    def run(self) -> dict[int, int] | None:
        """The host node of each guest node."""
        wishes = self.rooms.request.guest_nodes
        order = sorted(range(len(wishes)), key=lambda one: (-wishes[one].memory_bytes, -len(wishes[one].vcpus), one))
        return self.chosen if self._place(order, 0) else None

    def _place(self, order: list[int], depth: int) -> bool:
        if depth == len(order):
            return True
        used = set(self.chosen.values())
        left = tuple(sorted((self.memory[node], self.cpus[node], node in used) for node in self.memory))
        if (depth, left) in self.failed:
            return False
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise TooComplex
        wish = self.rooms.request.guest_nodes[order[depth]]
        vcpus, size = len(wish.vcpus), wish.memory_bytes
        tried: set[tuple[int, int, bool]] = set()
        for node in sorted(self.memory, key=self._preference):
            alike = (self.memory[node], self.cpus[node], node in used)
            if (
                self.memory[node] < size
                or self.cpus[node] < vcpus
                or alike in tried
                or (self.distinct and node in used)
            ):
                continue
            tried.add(alike)
            self.memory[node] -= size
            self.cpus[node] -= vcpus
            self.chosen[order[depth]] = node
            if self._place(order, depth + 1):
                return True
            del self.chosen[order[depth]]
            self.memory[node] += size
            self.cpus[node] += vcpus
        self.failed.add((depth, left))
        return False

    def _preference(self, node: int) -> tuple[float, ...]:
        silicon, request = self.rooms.occupancy.silicon, self.rooms.request
        chosen = self.chosen.values()
        left = self.memory[node] if request.policy is CpuPolicy.DEDICATED else -self.memory[node]
        apart = sum(silicon.distance(node, other) for other in chosen)
        return (node in chosen, nearness(silicon, request.near, (node,)), apart, left, node)


def pack(rooms: Rooms) -> Layout | None:
    """``None``: impossible. Raises ``TooComplex``."""
    distinct_first = (True, False) if 1 < len(rooms.request.guest_nodes) <= len(rooms.memory) else (False,)
    for hurried in (False, True):
        for kind in rooms.kinds:
            cells = {cell.node: cell for cell in rooms.cells(kind)}
            room = {node: rooms.cpus[cell.index] if hurried else rooms.unhurried(cell) for node, cell in cells.items()}
            for distinct in distinct_first:
                found = _try(_Search(rooms, _all_nodes(rooms, room), dict(rooms.memory), distinct))
                if found is not None:
                    return _layout(rooms, found, {node: cell.index for node, cell in cells.items()}, room)
    return _apart(rooms)


def can_pack(rooms: Rooms) -> bool:
    """The definition alone. ``False`` also where that cannot be found out."""
    try:
        return _memory_homes(rooms) is not None
    except TooComplex:
        return False


def _memory_homes(rooms: Rooms) -> dict[int, int] | None:
    nowhere = dict.fromkeys(rooms.memory, rooms.request.vcpus)
    return _Search(rooms, nowhere, dict(rooms.memory), distinct=False).run()


def _apart(rooms: Rooms) -> Layout | None:
    """Memory packed, vCPUs wherever there is room: as near to their memory as can be."""
    if not rooms.kinds:
        return None
    nodes = _memory_homes(rooms)
    if nodes is None:
        return None
    cells = {cell.node: cell for cell in rooms.cells(rooms.kinds[0])}
    return _layout(
        rooms,
        nodes,
        {node: cell.index for node, cell in cells.items()},
        {node: rooms.cpus[cell.index] for node, cell in cells.items()},
    )


def _try(search: _Search) -> dict[int, int] | None:
    """A better place that is too hard to find is done without: the last search of all decides."""
    try:
        return search.run()
    except TooComplex:
        return None


def _all_nodes(rooms: Rooms, room: Mapping[int, int]) -> dict[int, int]:
    return {node: room.get(node, 0) for node in rooms.memory}


def _layout(rooms: Rooms, chosen: Mapping[int, int], cells: Mapping[int, int], room: Mapping[int, int]) -> Layout:
    silicon, left, parts = rooms.occupancy.silicon, dict(room), []
    wishes = rooms.request.guest_nodes
    for guest in sorted(range(len(wishes)), key=lambda one: (room.get(chosen[one], 0) < len(wishes[one].vcpus), one)):
        wanted, seats = len(wishes[guest].vcpus), []
        for node in sorted(left, key=lambda node: (silicon.distance(chosen[guest], node), node)):
            count = min(wanted, left[node])
            if count:
                seats.append((cells[node], count))
                left[node] -= count
                wanted -= count
        parts.append((guest, Part(chosen[guest], wishes[guest].memory_bytes, tuple(seats))))
    return Layout(tuple(part for _, part in sorted(parts, key=lambda part: part[0])))
