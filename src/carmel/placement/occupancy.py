"""What VMs have of a machine, and what that leaves. A value: adding or removing a VM gives a new one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from carmel.placement.bits import cpus_of, lowest, mask_of
from carmel.placement.model import Placement
from carmel.placement.silicon import Cell, Silicon
from carmel.resources.virtualmachine import CpuPolicy
from carmel.units import MIB


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one VM has: whole cores alone (CPU sets by cell), shared vCPUs (by cell), bytes (by node and page size)."""

    taken: Mapping[int, int]
    load: Mapping[int, int]
    memory: Mapping[tuple[int, int | None], int]


@dataclass(frozen=True, slots=True)
class Occupancy:
    """``taken[cell]``: cores of dedicated CPUs. ``load[cell]``: vCPUs of shared VMs. ``memory``: bytes by node and page
    size."""

    silicon: Silicon
    placements: Mapping[str, Placement]
    footprints: Mapping[str, Footprint]
    taken: tuple[int, ...]
    load: tuple[int, ...]
    memory: Mapping[tuple[int, int | None], int]

    @classmethod
    def of(cls, silicon: Silicon, placements: Iterable[Placement] = ()) -> Occupancy:
        none = (0,) * len(silicon.cells)
        occupancy = cls(silicon, {}, {}, none, none, {})
        for placement in placements:
            occupancy = occupancy.plus(placement)
        return occupancy

    def on(self, silicon: Silicon) -> Occupancy:
        """The same VMs on what the machine, or its rules, have become."""
        return self if silicon is self.silicon else Occupancy.of(silicon, self.placements.values())

    def plus(self, placement: Placement) -> Occupancy:
        """With one VM more. A VM that is there already has its new place, and no longer the old one."""
        uid = placement.request.uid
        if uid in self.placements:
            return self.minus(uid).plus(placement)
        print_ = footprint(self.silicon, placement)
        taken, load, memory = list(self.taken), list(self.load), dict(self.memory)
        for cell, cpus in print_.taken.items():
            taken[cell] |= cpus
        for cell, vcpus in print_.load.items():
            load[cell] += vcpus
        for key, size in print_.memory.items():
            memory[key] = memory.get(key, 0) + size
        return Occupancy(
            self.silicon,
            {**self.placements, uid: placement},
            {**self.footprints, uid: print_},
            tuple(taken),
            tuple(load),
            memory,
        )

    def minus(self, uid: str) -> Occupancy:
        """Without that VM; the same value if it is not there."""
        if uid not in self.placements:
            return self
        placements, footprints = dict(self.placements), dict(self.footprints)
        del placements[uid]
        gone = footprints.pop(uid)
        taken, load, memory = list(self.taken), list(self.load), dict(self.memory)
        for cell in gone.taken:
            taken[cell] = 0
            for other in footprints.values():
                taken[cell] |= other.taken.get(cell, 0)
        for cell, vcpus in gone.load.items():
            load[cell] -= vcpus
        for key, size in gone.memory.items():
            memory[key] -= size
            if not memory[key]:
                del memory[key]
        return Occupancy(self.silicon, placements, footprints, tuple(taken), tuple(load), memory)

    def current(self, uid: str) -> Placement:
        """A VM's placement as it is by now: what others have come to own is no longer among the CPUs that it floats
        over, and what they gave back is. ``KeyError``: no such VM."""
        placement = self.placements[uid]
        cells = sorted(cells_of(self.silicon, placement))
        if placement.request.policy is CpuPolicy.DEDICATED:
            own = mask_of(cpu for cpus in placement.vcpus for cpu in cpus)
            return replace(placement, emulator_cpus=self.emulator_cpus(cells, placement.memory_nodes, own))
        fresh: dict[tuple[int, ...], tuple[int, ...]] = {}
        for cpus in set(placement.vcpus):
            cell = cell_of(self.silicon, cpus)
            pool = self.pool(self.silicon.cells[cell]) if cell is not None else 0
            fresh[cpus] = cpus_of(pool) or cpus
        vcpus = tuple(fresh[cpus] for cpus in placement.vcpus)
        return replace(
            placement, vcpus=vcpus, emulator_cpus=tuple(sorted({cpu for cpus in set(vcpus) for cpu in cpus}))
        )

    def pool(self, cell: Cell) -> int:
        """The CPUs that shared VMs run on there."""
        return cell.shareable & ~self.taken[cell.index]

    def free_cores(self, cell: Cell) -> int:
        """The CPUs of cores that could be dedicated, as far as shared VMs do not need them."""
        return cell.dedicable & ~self.taken[cell.index]

    def shared_room(self, cell: Cell) -> int:
        """How many shared vCPUs more."""
        return max(0, self.silicon.vcpus_for(self.pool(cell).bit_count()) - self.load[cell.index])

    def slack(self, cell: Cell) -> int:
        """How many CPUs shared VMs can do without."""
        return max(0, self.pool(cell).bit_count() - self.silicon.cpus_for(self.load[cell.index]))

    def dedicated_room(self, cell: Cell) -> int:
        """How many CPUs more can be dedicated to one VM. Whole cores go: one of two threads counts for two or not at
        all."""
        free, slack = self.free_cores(cell), self.slack(cell)
        if cell.threads is not None:
            return min(free.bit_count(), slack // cell.threads * cell.threads)
        sums = 1
        for core in cell.cores:
            if core & free:
                sums |= sums << core.bit_count()
        return (sums & ((1 << slack + 1) - 1)).bit_length() - 1

    def cpu_room(self, cell: Cell, policy: CpuPolicy) -> int:
        """How many vCPUs more of that policy."""
        return self.dedicated_room(cell) if policy is CpuPolicy.DEDICATED else self.shared_room(cell)

    def memory_room(self, node: int, page_bytes: int | None) -> int:
        """Bytes: whole pages, and whole MiB."""
        capacity = self.silicon.nodes[node].capacity.get(page_bytes, 0)
        free = max(0, capacity - self.memory.get((node, page_bytes), 0))
        return free - free % granule(page_bytes)

    def emulator_cpus(self, cells: Iterable[int], nodes: Iterable[int], own: int) -> tuple[int, ...]:
        """For QEMU's other threads of a dedicated VM: near it, of its kind of CPU, on nobody's dedicated CPU; its
        ``own`` cores if the machine has nothing else."""
        near = [self.silicon.cells[cell] for cell in cells]
        cores = sum(cell.whole_cores(own) for cell in self.silicon.cells)
        kinds = {cell.kind for cell in near}
        homes = {cell.node for cell in near} | set(nodes)
        alike = [cell for cell in self.silicon.cells if cell.kind in kinds]
        for choice in ([cell for cell in alike if cell.node in homes], alike, self.silicon.cells):
            open_to_all = 0
            for cell in choice:
                open_to_all |= cell.cpus & ~self.taken[cell.index] & ~cores
            if open_to_all:
                return cpus_of(open_to_all)
        return cpus_of(cores)


def granule(page_bytes: int | None) -> int:
    """What memory is dealt in: QEMU wants whole MiB, and whole pages."""
    return max(MIB, page_bytes or 0)


def cell_of(silicon: Silicon, cpus: tuple[int, ...]) -> int | None:
    """The cell of a vCPU's host CPUs: that of the first one that the machine still has."""
    return next((silicon.cell_of[cpu] for cpu in cpus if cpu in silicon.cell_of), None)


def cells_of(silicon: Silicon, placement: Placement) -> set[int]:
    return {cell for cpus in set(placement.vcpus) if (cell := cell_of(silicon, cpus)) is not None}


def footprint(silicon: Silicon, placement: Placement) -> Footprint:
    taken: dict[int, int] = {}
    load: dict[int, int] = {}
    memory: dict[tuple[int, int | None], int] = {}
    if placement.request.policy is CpuPolicy.DEDICATED:
        own = mask_of(cpu for cpus in placement.vcpus for cpu in cpus)
        while own:
            cell_index = silicon.cell_of.get(lowest(own))
            if cell_index is None:
                own &= own - 1
                continue
            cell = silicon.cells[cell_index]
            taken[cell_index] = cell.whole_cores(own)
            own &= ~cell.cpus
    else:
        cells: dict[tuple[int, ...], int | None] = {}
        for cpus in placement.vcpus:
            if cpus not in cells:
                cells[cpus] = cell_of(silicon, cpus)
            home = cells[cpus]
            if home is not None:
                load[home] = load.get(home, 0) + 1
    for node in placement.nodes:
        key = (node.host_node, placement.request.page_bytes)
        memory[key] = memory.get(key, 0) + node.memory_bytes
    return Footprint(taken, load, memory)
