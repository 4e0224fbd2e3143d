"""Which node, or which nodes: every choice here is possible, and the best one has the smallest key."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from math import comb

from carmel.placement.cores import choose
from carmel.placement.dealing import deal, deal_in_units
from carmel.placement.layout import Layout, lay_out
from carmel.placement.occupancy import granule
from carmel.placement.room import Rooms
from carmel.placement.silicon import Cell, Silicon
from carmel.resources.virtualmachine import CpuPolicy

_MOST_SETS = 300
"""Sets of nodes that are looked at one by one; on machines that have more, those around each node are."""
_EVEN_ENOUGH = 1.1
"""Equal halves are worth this much more waiting to a guest than a split after the last CPU."""


@dataclass(frozen=True, slots=True)
class Choice:
    """``key``: one number for each of ``aspects``, in the order of their weight."""

    layout: Layout
    kind: int
    aspects: tuple[str, ...]
    key: tuple[float, ...]


DEDICATED = ("near", "kind", "squeezed", "split clusters", "tight", "split clusters", "node")
SHARED = ("near", "speed", "busy", "node")


def whole(rooms: Rooms) -> list[Choice]:
    """The nodes that have room for all of it, best first, and no vCPU of it waiting for another one of its own."""
    choices = [
        _one_node(rooms, cell)
        for kind in rooms.kinds
        for cell in rooms.cells(kind)
        if rooms.unhurried(cell) >= rooms.request.vcpus and rooms.memory[cell.node] >= rooms.request.memory_bytes
    ]
    return sorted(choices, key=lambda choice: choice.key)


def _one_node(rooms: Rooms, cell: Cell) -> Choice:
    request, occupancy, silicon = rooms.request, rooms.occupancy, rooms.occupancy.silicon
    near = float(nearness(silicon, request.near, (cell.node,)))
    kind = silicon.kinds[cell.kind]
    if request.policy is CpuPolicy.DEDICATED:
        chosen = choose(occupancy, cell, request.vcpus)
        left = occupancy.pool(cell).bit_count() - len(chosen.cpus)
        squeezed = max(0, occupancy.load[cell.index] - left)
        tight = rooms.cpus[cell.index] - request.vcpus
        split = chosen.shared_clusters
        whole_clusters = split if _is_whole_clusters(cell, request.vcpus) else 0
        key: tuple[float, ...] = (near, kind.rank, squeezed, whole_clusters, tight, split, cell.node)
    else:
        load = (occupancy.load[cell.index] + request.vcpus) / occupancy.pool(cell).bit_count()
        capacity = silicon.nodes[cell.node].capacity[request.page_bytes]
        full = 1 - (rooms.memory[cell.node] - request.memory_bytes) / capacity
        key = (near, -kind.power / max(1.0, load), max(load, full), cell.node)
    layout = lay_out(silicon, {cell.index: request.vcpus}, {cell.node: request.memory_bytes})
    return Choice(layout, cell.kind, DEDICATED if request.policy is CpuPolicy.DEDICATED else SHARED, key)


def _is_whole_clusters(cell: Cell, vcpus: int) -> bool:
    """Only VMs that can have whole clusters look for a node with some: would the small ones too, they would be all over
    the machine, and nothing large would be left whole."""
    return bool(cell.clusters) and vcpus % max(cluster.bit_count() for cluster in cell.clusters) == 0


def spread(rooms: Rooms) -> Layout:
    """Over several nodes: as few as can be, close to each other, memory where the vCPUs are. ``rooms.suffice`` must
    hold."""
    for kind in rooms.kinds:
        caps = {cell.node: (cell, rooms.unhurried(cell)) for cell in rooms.cells(kind)}
        if sum(cap for _, cap in caps.values()) >= rooms.request.vcpus:
            return _over(rooms, _best_set(rooms, {node: cap for node, (_, cap) in caps.items()}), caps, even=True)
    return _crowded(rooms)


def _crowded(rooms: Rooms) -> Layout:
    """More vCPUs than there are CPUs for them: over all CPUs of the kind that then has the most for each vCPU."""
    occupancy, silicon = rooms.occupancy, rooms.occupancy.silicon

    def worth(kind: int) -> int:
        return silicon.kinds[kind].power * sum(occupancy.pool(cell).bit_count() for cell in rooms.cells(kind))

    kind = max(rooms.kinds, key=worth)
    caps = {cell.node: (cell, rooms.cpus[cell.index]) for cell in rooms.cells(kind)}
    return _over(rooms, _with_memory(rooms, set(caps)), caps, even=False)


def _with_memory(rooms: Rooms, nodes: set[int]) -> tuple[int, ...]:
    """These nodes and, if their memory does not do, those that have more, the nearest first."""
    silicon, picked = rooms.occupancy.silicon, sorted(nodes)
    others = sorted(
        rooms.memory.keys() - nodes, key=lambda node: (min(silicon.distance(node, one) for one in nodes), node)
    )
    while sum(rooms.memory[node] for node in picked) < rooms.request.memory_bytes:
        picked.append(others.pop(0))
    return tuple(sorted(picked))


def _best_set(rooms: Rooms, caps: Mapping[int, int]) -> tuple[int, ...]:
    """The fewest nodes in which memory can be where the vCPUs are; if there are none, the fewest that have room."""
    request = rooms.request
    nodes = [node for node in rooms.memory if caps.get(node, 0) or rooms.memory[node]]
    fallback: tuple[int, ...] | None = None
    for size in range(_at_least(rooms, caps), len(nodes) + 1):
        fitting = [
            some
            for some in _sets(rooms.occupancy.silicon, nodes, size)
            if sum(caps.get(node, 0) for node in some) >= request.vcpus
            and sum(rooms.memory[node] for node in some) >= request.memory_bytes
        ]
        local = [some for some in fitting if sum(_local_caps(rooms, caps, some)) >= request.vcpus]
        if local:
            return min(local, key=lambda some: _set_key(rooms, caps, some))
        if fitting and fallback is None:
            fallback = min(fitting, key=lambda some: _set_key(rooms, caps, some))
    assert fallback is not None, "all nodes together have room"
    return fallback


def _at_least(rooms: Rooms, caps: Mapping[int, int]) -> int:
    """How few nodes could do, if the largest could be had together."""
    return max(
        _how_many(caps.values(), rooms.request.vcpus), _how_many(rooms.memory.values(), rooms.request.memory_bytes)
    )


def _how_many(sizes: Iterable[int], wanted: int) -> int:
    count = 0
    for size in sorted(sizes, reverse=True):
        if wanted <= 0:
            break
        wanted -= size
        count += 1
    return count


def _sets(silicon: Silicon, nodes: list[int], size: int) -> Iterator[tuple[int, ...]]:
    if comb(len(nodes), size) <= _MOST_SETS:
        yield from combinations(nodes, size)
        return
    for seed in nodes:
        yield tuple(sorted(sorted(nodes, key=lambda node: (silicon.distance(seed, node), node))[:size]))


def _local_caps(rooms: Rooms, caps: Mapping[int, int], nodes: Iterable[int]) -> list[int]:
    """How many vCPUs each node takes together with their part of the memory."""
    request = rooms.request
    return [min(caps.get(node, 0), rooms.memory[node] * request.vcpus // request.memory_bytes) for node in nodes]


def _set_key(rooms: Rooms, caps: Mapping[int, int], nodes: tuple[int, ...]) -> tuple[float, ...]:
    silicon = rooms.occupancy.silicon
    near = nearness(silicon, rooms.request.near, nodes)
    apart = sum(silicon.distance(one, other) for one in nodes for other in nodes)
    locals_ = _local_caps(rooms, caps, nodes)
    uneven = max(0, rooms.request.vcpus - min(locals_) * len(nodes))
    left = sum(locals_)
    return (near, apart, uneven, left if rooms.request.policy is CpuPolicy.DEDICATED else -left, *nodes)


def _over(rooms: Rooms, nodes: tuple[int, ...], caps: Mapping[int, tuple[Cell, int]], *, even: bool) -> Layout:
    """Deals vCPUs and memory to these nodes."""
    request, silicon = rooms.request, rooms.occupancy.silicon
    seats = {node: caps[node][1] if node in caps else 0 for node in nodes}
    local = _local_caps(rooms, seats, nodes)
    limits = local if sum(local) >= request.vcpus else list(seats.values())
    cells = [caps[node][0] for node in nodes if node in caps]
    units = _units(cells) if request.policy is CpuPolicy.DEDICATED else ()
    counts = deal_in_units(request.vcpus, limits, [1] * len(nodes), units)
    if not even:
        pools = [rooms.occupancy.pool(caps[node][0]).bit_count() if node in caps else 0 for node in nodes]
        fair = deal(request.vcpus, limits, pools)
        if _waiting(counts, pools) > _EVEN_ENOUGH * _waiting(fair, pools):
            counts = fair
    grain = granule(request.page_bytes)
    grains = deal(request.memory_bytes // grain, [rooms.memory[node] // grain for node in nodes], counts)
    cpus = {caps[node][0].index: count for node, count in zip(nodes, counts, strict=True) if count}
    return lay_out(silicon, cpus, {node: share * grain for node, share in zip(nodes, grains, strict=True)})


def _units(cells: Iterable[Cell]) -> tuple[int, ...]:
    """Clusters, then cores: what vCPUs are best dealt in, where all cells are of the same make."""
    clusters = {cluster.bit_count() for cell in cells for cluster in cell.clusters}
    threads = {cell.threads or 1 for cell in cells}
    return (*(clusters if len(clusters) == 1 else ()), *(threads if len(threads) == 1 else ()))


def _waiting(counts: Iterable[int], pools: Iterable[int]) -> float:
    return max(count / pool for count, pool in zip(counts, pools, strict=True) if count and pool)


def nearness(silicon: Silicon, near: Iterable[int], nodes: Iterable[int]) -> int:
    """How far its devices are, together; devices of nodes that the machine does not have count for nothing."""
    places = tuple(nodes)
    return sum(min(silicon.distance(place, one) for place in places) for one in near if one in silicon.nodes)
