"""Moving a VM that runs: its guest keeps what it sees, so guest nodes go whole, with memory and vCPUs together.

Linux moves the pages and memory policies of a process from the old nodes of its cpuset to the new ones by rank, the
first to the first and so on, or all to one (mm/mempolicy.c, ``nodes_remap``). A VM on several nodes is therefore moved
only to one node, or to as many others in the same order. The kind of CPU stays, a running guest knows it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb

from carmel.placement.layout import Layout, Part, assemble
from carmel.placement.model import GuestNodeWish, Placement, Request
from carmel.placement.occupancy import Footprint, Occupancy, cell_of
from carmel.placement.silicon import Silicon

_MOST_SETS = 64
"""Sets of nodes to move a VM on several nodes to; beyond, it is only moved to single nodes."""


@dataclass(frozen=True, slots=True)
class Step:
    """A move that is possible in the occupancy that it was found in. ``bytes`` change their node."""

    uid: str
    layout: Layout
    bytes: int


def same_shape(placement: Placement) -> Request:
    """What a VM asks for that must come up with the guest it has: after a suspend, or on the way to another node."""
    wishes = tuple(GuestNodeWish(node.vcpus, node.memory_bytes, node.distances) for node in placement.nodes)
    return replace(placement.request, guest_nodes=wishes, topology=placement.topology)


def steps(occupancy: Occupancy, uid: str) -> Iterator[Step]:
    """Everywhere that this VM could be moved to."""
    placement = occupancy.placements[uid]
    silicon = occupancy.silicon
    kind = _kind(silicon, placement)
    if not placement.request.movable or kind is None:
        return
    cells = {cell.node: cell.index for cell in silicon.cells if cell.kind == kind}
    here = _nodes(silicon, placement)
    without = occupancy.minus(uid)
    for there in _destinations(placement, sorted(cells)):
        layout = _layout(placement, there, cells)
        if _nodes_of(silicon, layout) != here and _fits(without, placement.request, layout):
            moved = sum(node.memory_bytes for node in placement.nodes if there[node.host_node] != node.host_node)
            yield Step(uid, layout, moved)


def moved(occupancy: Occupancy, step: Step, why: str) -> Placement:
    """The placement after a step. It still asks for what was asked at first."""
    before = occupancy.placements[step.uid]
    placement = assemble(occupancy.minus(step.uid), same_shape(before), step.layout)
    return replace(placement, request=before.request, reasons=(why,), next_best=None)


def after(occupancy: Occupancy, step: Step) -> Occupancy:
    return occupancy.plus(moved(occupancy, step, ""))


def alike(occupancy: Occupancy, uid: str) -> tuple[object, ...]:
    """VMs of which this is equal are interchangeable to who needs room."""
    placement, print_ = occupancy.placements[uid], occupancy.footprints[uid]
    shape = tuple((len(node.vcpus), node.memory_bytes, node.host_node) for node in placement.nodes)
    request = placement.request
    return (request.policy, request.page_bytes, request.movable, shape, *_numbers(print_))


def _numbers(print_: Footprint) -> tuple[object, ...]:
    return (tuple(sorted(print_.load.items())), tuple(sorted(print_.taken.items())))


def _kind(silicon: Silicon, placement: Placement) -> int | None:
    cell = next((home for cpus in placement.vcpus if (home := cell_of(silicon, cpus)) is not None), None)
    return silicon.cells[cell].kind if cell is not None else None


def _destinations(placement: Placement, nodes: list[int]) -> Iterator[dict[int, int]]:
    """From each of its memory nodes to another."""
    old = placement.memory_nodes
    for node in nodes:
        yield dict.fromkeys(old, node)
    if len(old) > 1 and comb(len(nodes), len(old)) <= _MOST_SETS:
        for some in combinations(nodes, len(old)):
            yield dict(zip(old, some, strict=True))


def _layout(placement: Placement, there: dict[int, int], cells: dict[int, int]) -> Layout:
    parts = []
    for node in placement.nodes:
        home = there[node.host_node]
        seats = ((cells[home], len(node.vcpus)),) if node.vcpus else ()
        parts.append(Part(home, node.memory_bytes, seats))
    return Layout(tuple(parts))


def _fits(without: Occupancy, request: Request, layout: Layout) -> bool:
    memory: dict[int, int] = {}
    for part in layout.parts:
        memory[part.host_node] = memory.get(part.host_node, 0) + part.memory_bytes
    cells = without.silicon.cells
    return all(
        count <= without.cpu_room(cells[cell], request.policy) for cell, count in layout.by_cell().items()
    ) and all(size <= without.memory_room(node, request.page_bytes) for node, size in memory.items())


def _nodes(silicon: Silicon, placement: Placement) -> list[tuple[int, frozenset[int]]]:
    """Of each guest node: its memory's node, and those of its vCPUs."""
    homes = {cpus: cell_of(silicon, cpus) for cpus in set(placement.vcpus)}
    where = {cpus: silicon.cells[cell].node for cpus, cell in homes.items() if cell is not None}
    return [
        (
            node.host_node,
            frozenset(where[placement.vcpus[vcpu]] for vcpu in node.vcpus if placement.vcpus[vcpu] in where),
        )
        for node in placement.nodes
    ]


def _nodes_of(silicon: Silicon, layout: Layout) -> list[tuple[int, frozenset[int]]]:
    return [(part.host_node, frozenset(silicon.cells[cell].node for cell, _ in part.seats)) for part in layout.parts]
