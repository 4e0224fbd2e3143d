"""From numbers to a placement: how many vCPUs and bytes go where is decided, which CPUs and what the guest sees of it
is worked out here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from carmel.placement.bits import cpus_of, mask_of
from carmel.placement.cores import choose
from carmel.placement.model import GuestNode, Placement, Request
from carmel.placement.occupancy import Occupancy
from carmel.placement.shape import guest_topology
from carmel.placement.silicon import Silicon
from carmel.resources.virtualmachine import CpuPolicy

FARTHEST = 254
"""255 says unreachable (ACPI 6.5, 5.2.17)."""


@dataclass(frozen=True, slots=True)
class Part:
    """One guest node: memory on one host node, and its vCPUs by cell: ``(index, how many)``."""

    host_node: int
    memory_bytes: int
    seats: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """All guest nodes of a VM, in order."""

    parts: tuple[Part, ...]

    def by_cell(self) -> dict[int, int]:
        """vCPUs of each cell."""
        counts: dict[int, int] = {}
        for part in self.parts:
            for cell, count in part.seats:
                counts[cell] = counts.get(cell, 0) + count
        return counts

    def nodes(self, silicon: Silicon) -> frozenset[int]:
        """Host nodes of its memory and CPUs."""
        return frozenset(part.host_node for part in self.parts) | {
            silicon.cells[cell].node for part in self.parts for cell, _ in part.seats
        }

    def remote_vcpus(self, silicon: Silicon) -> int:
        """vCPUs that are on another node than their guest node's memory."""
        return sum(
            count for part in self.parts for cell, count in part.seats if silicon.cells[cell].node != part.host_node
        )


def lay_out(silicon: Silicon, cpus: Mapping[int, int], memory: Mapping[int, int]) -> Layout:
    """Guest nodes that mirror the host's: one for each node that gives memory. vCPUs of a node that gives none belong
    to the nearest that does."""
    nodes = [silicon.nodes[node] for node, size in memory.items() if size]
    order = [node.id for node in sorted(nodes, key=lambda node: (node.socket < 0, node.socket, node.id))]
    seats: dict[int, list[tuple[int, int]]] = {node: [] for node in order}
    for cell, count in cpus.items():
        if count:
            home = silicon.cells[cell].node
            seats[min(order, key=lambda node: (silicon.distance(home, node), node))].append((cell, count))
    for node, here in seats.items():
        here.sort(key=lambda seat: (silicon.cells[seat[0]].node != node, seat[0]))
    return Layout(tuple(Part(node, memory[node], tuple(seats[node])) for node in order))


def assemble(occupancy: Occupancy, request: Request, layout: Layout) -> Placement:
    """The placement itself, yet without its reasons."""
    silicon = occupancy.silicon
    members = _members(request, layout)
    homes = _homes(layout, members, request.vcpus)
    counts = layout.by_cell()
    if request.policy is CpuPolicy.DEDICATED:
        own = {cell: choose(occupancy, silicon.cells[cell], count).cpus for cell, count in counts.items()}
        next_own = {cell: iter(cpus) for cell, cpus in own.items()}
        vcpus: tuple[tuple[int, ...], ...] = tuple((next(next_own[home]),) for home in homes)
        emulator = occupancy.emulator_cpus(
            sorted(counts), {part.host_node for part in layout.parts}, mask_of(cpus[0] for cpus in vcpus)
        )
    else:
        pools = {cell: cpus_of(occupancy.pool(silicon.cells[cell])) for cell in counts}
        vcpus = tuple(pools[home] for home in homes)
        emulator = tuple(sorted(cpu for pool in pools.values() for cpu in pool))
    return Placement(
        request=request,
        vcpus=vcpus,
        nodes=tuple(_guest_nodes(silicon, request, layout, members)),
        topology=request.topology or guest_topology(silicon, request.policy, homes, vcpus),
        emulator_cpus=emulator,
    )


def _members(request: Request, layout: Layout) -> list[tuple[int, ...]]:
    """vCPUs of each guest node."""
    if request.guest_nodes:
        return [tuple(sorted(wish.vcpus)) for wish in request.guest_nodes]
    members, first = [], 0
    for part in layout.parts:
        count = sum(count for _, count in part.seats)
        members.append(tuple(range(first, first + count)))
        first += count
    return members


def _homes(layout: Layout, members: Sequence[tuple[int, ...]], vcpus: int) -> list[int]:
    """The cell of each vCPU."""
    homes = [0] * vcpus
    for part, vcpu_ids in zip(layout.parts, members, strict=True):
        cells = (cell for cell, count in part.seats for _ in range(count))
        for vcpu, cell in zip(vcpu_ids, cells, strict=True):
            homes[vcpu] = cell
    return homes


def _guest_nodes(
    silicon: Silicon, request: Request, layout: Layout, members: Sequence[tuple[int, ...]]
) -> Iterator[GuestNode]:
    for index, part in enumerate(layout.parts):
        if request.guest_nodes:
            distances = request.guest_nodes[index].distances
        else:
            distances = tuple(
                min(FARTHEST, silicon.distance(part.host_node, other.host_node)) for other in layout.parts
            )
        yield GuestNode(index, members[index], part.memory_bytes, part.host_node, distances)
