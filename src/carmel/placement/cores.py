"""Which CPUs of a cell a dedicated VM gets: whole clusters where they fit, and none that another VM is in, where there
is a choice."""

from __future__ import annotations

from dataclasses import dataclass

from carmel.placement.bits import cpus_of, lowest
from carmel.placement.occupancy import Occupancy
from carmel.placement.silicon import Cell


@dataclass(frozen=True, slots=True)
class Chosen:
    """``cpus`` in the order that vCPUs get them: threads of a core, cores of a cluster next to each other.
    ``shared_clusters``: how many of the clusters have another dedicated VM in them."""

    cpus: tuple[int, ...]
    shared_clusters: int


def choose(occupancy: Occupancy, cell: Cell, count: int) -> Chosen:
    """``count`` must not exceed ``occupancy.dedicated_room(cell)``."""
    free = occupancy.free_cores(cell)
    if cell.threads is None:
        cores = _exact(cell, free, count, occupancy.slack(cell))
        return Chosen(_in_order(cell, cores)[:count], _shared(occupancy, cell, cores))
    wanted = -(-count // cell.threads) * cell.threads
    if not cell.clusters:
        return Chosen(_in_order(cell, _first(cell, free, wanted))[:count], 0)
    picked = _by_cluster(occupancy, cell, free, wanted)
    cpus = [cpu for part in sorted(picked, key=lowest) for cpu in _in_order(cell, part)]
    return Chosen(tuple(cpus[:count]), _shared(occupancy, cell, sum(picked)))


def _by_cluster(occupancy: Occupancy, cell: Cell, free: int, wanted: int) -> list[int]:
    taken = occupancy.taken[cell.index]
    parts = [(bool(cluster & taken), cluster & free) for cluster in cell.clusters if cluster & free]
    loose = free & ~sum(cell.clusters)
    untouched = [part for touched, part in parts if not touched]
    touched = [part for touched, part in parts if touched] + ([loose] if loose else [])
    picked: list[int] = []
    for choice in (untouched, touched):
        while wanted and choice:
            part = _best(choice, wanted)
            choice.remove(part)
            picked.append(_first(cell, part, min(wanted, part.bit_count())))
            wanted -= picked[-1].bit_count()
    return picked


def _best(parts: list[int], wanted: int) -> int:
    """The one that is filled exactly, else the largest that is filled, else the smallest that has room."""
    sizes = [part.bit_count() for part in parts]
    filled = [size for size in sizes if size <= wanted]
    return parts[sizes.index(max(filled) if filled else min(sizes))]


def _first(cell: Cell, free: int, wanted: int) -> int:
    """The lowest cores that have that many CPUs, a multiple of the cell's threads."""
    if cell.threads == 1:
        rest = free
        for _ in range(wanted):
            rest &= rest - 1
        return free & ~rest
    picked = 0
    for core in cell.cores:
        if picked.bit_count() >= wanted:
            break
        picked |= core if core & free else 0
    return picked


def _exact(cell: Cell, free: int, count: int, slack: int) -> int:
    """Cores of different sizes with at least ``count`` CPUs and as few more as possible, never above ``slack``."""
    best: dict[int, int] = {0: 0}
    for core in cell.cores:
        if core & free:
            for size, cores in sorted(best.items(), reverse=True):
                best.setdefault(size + core.bit_count(), cores | core)
    return best[min(size for size in best if count <= size <= slack)]


def _in_order(cell: Cell, cores: int) -> tuple[int, ...]:
    if cell.threads == 1:
        return cpus_of(cores)
    return tuple(cpu for core in cell.cores if core & cores for cpu in cpus_of(core & cores))


def _shared(occupancy: Occupancy, cell: Cell, cores: int) -> int:
    taken = occupancy.taken[cell.index]
    return sum(1 for cluster in cell.clusters if cluster & cores and cluster & taken)
