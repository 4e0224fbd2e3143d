"""Is there room at all? Exact, by counting: docs/placement.md says why these sums are all there is to it."""

from __future__ import annotations

from dataclasses import dataclass

from carmel.placement.model import Request
from carmel.placement.occupancy import Occupancy
from carmel.placement.silicon import Cell
from carmel.resources.virtualmachine import CpuPolicy


@dataclass(frozen=True, slots=True)
class Rooms:
    """What one request could still have. ``cpus`` by cell, ``memory`` in bytes by node; ``kinds`` have CPUs enough,
    the strongest first."""

    occupancy: Occupancy
    request: Request
    cpus: tuple[int, ...]
    memory: dict[int, int]
    kinds: tuple[int, ...]

    def cells(self, kind: int) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.occupancy.silicon.cells_of_kind(kind) if self.cpus[cell.index])

    def unhurried(self, cell: Cell) -> int:
        """vCPUs that the cell takes without two of the same VM having to wait for each other."""
        room = self.cpus[cell.index]
        if self.request.policy is CpuPolicy.DEDICATED:
            return room
        return min(room, self.occupancy.pool(cell).bit_count())

    @property
    def most_cpus(self) -> int:
        """Of one kind."""
        silicon = self.occupancy.silicon
        sums = [
            sum(self.cpus[cell.index] for cell in silicon.cells_of_kind(kind)) for kind in range(len(silicon.kinds))
        ]
        return max(sums, default=0)

    @property
    def most_memory(self) -> int:
        return sum(self.memory.values())

    @property
    def suffice(self) -> bool:
        """As far as sums tell; guest nodes that are given must be packed besides."""
        return bool(self.kinds) and self.most_memory >= self.request.memory_bytes


def rooms(occupancy: Occupancy, request: Request) -> Rooms:
    silicon = occupancy.silicon
    cpus = tuple(occupancy.cpu_room(cell, request.policy) for cell in silicon.cells)
    sums = dict.fromkeys(silicon.kinds_by_rank, 0)
    for cell in silicon.cells:
        sums[cell.kind] += cpus[cell.index]
    memory = {node: occupancy.memory_room(node, request.page_bytes) for node in silicon.nodes}
    kinds = tuple(kind for kind, total in sums.items() if total >= request.vcpus)
    return Rooms(occupancy, request, cpus, memory, kinds)
