"""Could any moves at all make room? A bound that is cheap to have: most refusals are for want of CPUs or memory in the
whole machine, and no move makes those."""

from __future__ import annotations

from carmel.placement.model import Request
from carmel.placement.occupancy import Occupancy
from carmel.placement.room import rooms
from carmel.resources.virtualmachine import CpuPolicy


def moves_may_help(occupancy: Occupancy, request: Request) -> bool:
    """``False`` is certain. Memory that is free in sum stays so, whoever moves; CPUs can be won from what is lost to
    rounding: to whole cores, and to a whole CPU for the shared vCPUs of each node."""
    if rooms(occupancy, request).most_memory < request.memory_bytes:
        return False
    return any(_most(occupancy, kind, request.policy) >= request.vcpus for kind in range(len(occupancy.silicon.kinds)))


def _most(occupancy: Occupancy, kind: int, policy: CpuPolicy) -> int:
    """vCPUs of this policy, if all that has been rounded were one."""
    silicon = occupancy.silicon
    cells = silicon.cells_of_kind(kind)
    pool = sum(occupancy.pool(cell).bit_count() for cell in cells) + _idle_threads(occupancy, kind)
    load = sum(occupancy.load[cell.index] for cell in cells)
    if policy is CpuPolicy.SHARED:
        return silicon.vcpus_for(pool) - load
    free = sum(occupancy.free_cores(cell).bit_count() for cell in cells) + _idle_threads(occupancy, kind)
    return min(free, pool - silicon.cpus_for(load))


def _idle_threads(occupancy: Occupancy, kind: int) -> int:
    """CPUs in the cores of dedicated VMs that could move, beyond those that they run on."""
    idle = 0
    for uid, print_ in occupancy.footprints.items():
        placement = occupancy.placements[uid]
        if print_.taken and placement.request.movable:
            cores = sum(c.bit_count() for cell, c in print_.taken.items() if occupancy.silicon.cells[cell].kind == kind)
            idle += max(0, cores - placement.request.vcpus) if cores else 0
    return idle
