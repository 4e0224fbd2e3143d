"""A machine made ready for placing: sets of CPUs as integers, capacities as numbers, nothing left to look up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from carmel.hardware.model import CacheType, Group, Hardware, HugePages, NumaNode
from carmel.placement.bits import cpus_of, lowest, mask_of
from carmel.placement.model import Rules
from carmel.units import MIB

LOCAL = 10
REMOTE = 20
"""What a distance is taken for where the firmware gives none (Linux, include/linux/topology.h, REMOTE_DISTANCE)."""


@dataclass(frozen=True, slots=True)
class Cell:
    """The CPUs of one kind in one node: no VM ever runs on two kinds, so this is what CPUs are counted in.

    All are sets of CPUs. ``shareable`` are those that shared VMs may run on while none is dedicated; ``dedicable``
    those of whole cores of which nothing is kept back. ``cores`` and ``clusters`` are disjoint parts of ``cpus``;
    ``clusters`` is empty where the silicon has none smaller than the cell.
    """

    index: int
    node: int
    kind: int
    cpus: int
    shareable: int
    dedicable: int
    cores: tuple[int, ...]
    clusters: tuple[int, ...]
    threads: int | None
    """Of each dedicable core; ``None`` where they differ."""

    @property
    def reserved(self) -> int:
        return self.cpus & ~self.shareable

    def whole_cores(self, cpus: int) -> int:
        """The cores that any of these CPUs are part of."""
        if self.threads == 1 and len(self.cores) == self.cpus.bit_count():
            return cpus & self.cpus
        return sum(core for core in self.cores if core & cpus)


@dataclass(frozen=True, slots=True)
class Node:
    """A NUMA node. ``capacity``: bytes for VMs by page size, ``None`` the ordinary one. ``socket``: -1 without CPUs."""

    id: int
    socket: int
    cells: tuple[int, ...]
    capacity: Mapping[int | None, int]
    distances: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Kind:
    """``power`` is what one CPU is worth, 1024 the strongest; ``rank`` 0 is the strongest kind."""

    name: str
    power: int
    rank: int


@dataclass(frozen=True, slots=True)
class Silicon:
    """``cell_of[cpu]`` is an index into ``cells``, ``core_of`` and ``cluster_of`` are sets of CPUs (``cluster_of`` only
    where there are clusters). ``page_sizes`` are the huge pages that the kernel offers."""

    rules: Rules
    nodes: Mapping[int, Node]
    cells: tuple[Cell, ...]
    kinds: tuple[Kind, ...]
    cell_of: Mapping[int, int]
    core_of: Mapping[int, int]
    cluster_of: Mapping[int, int]
    page_sizes: tuple[int, ...]
    overcommit: Fraction

    def cells_of_kind(self, kind: int) -> tuple[Cell, ...]:
        return tuple(cell for cell in self.cells if cell.kind == kind)

    @property
    def kinds_by_rank(self) -> tuple[int, ...]:
        return tuple(sorted(range(len(self.kinds)), key=lambda kind: self.kinds[kind].rank))

    def vcpus_for(self, cpus: int) -> int:
        """How many shared vCPUs that many CPUs may carry."""
        return cpus * self.overcommit.numerator // self.overcommit.denominator

    def cpus_for(self, vcpus: int) -> int:
        """How many CPUs that many shared vCPUs need at least."""
        return -(-vcpus * self.overcommit.denominator // self.overcommit.numerator)

    def distance(self, one: int, other: int) -> int:
        return self.nodes[one].distances[other]


def survey(hardware: Hardware, rules: Rules) -> Silicon:
    """Everything about a machine that no VM changes. What the hardware does not say is taken at its mildest: a node
    without distances is remote to all, a CPU that belongs to no core is one of its own."""
    by_place: dict[tuple[int, int], int] = {}
    for cpu in hardware.cpus:
        kind = cpu.kind if cpu.kind < len(hardware.cpu_kinds) else 0
        by_place[cpu.node, kind] = by_place.get((cpu.node, kind), 0) | 1 << cpu.id
    cores, clusters = _masks(hardware.cores), _clusters(hardware)
    cells = tuple(
        _cell(index, place, cpus, rules, cores, clusters)
        for index, (place, cpus) in enumerate(sorted(by_place.items()))
    )
    known = {node.id: node for node in hardware.nodes}
    ids = sorted(known.keys() | {cell.node for cell in cells})
    sockets = {cpu.id: cpu.socket for cpu in hardware.cpus}
    pools = hardware.huge_pages if len(ids) == 1 else ()
    nodes = {one: _node(one, known, ids, [c for c in cells if c.node == one], sockets, rules, pools) for one in ids}
    return Silicon(
        rules=rules,
        nodes=nodes,
        cells=cells,
        kinds=_kinds(hardware),
        cell_of={cpu: cell.index for cell in cells for cpu in cpus_of(cell.cpus)},
        core_of={cpu: core for cell in cells for core in cell.cores for cpu in cpus_of(core)},
        cluster_of={cpu: cluster for cell in cells for cluster in cell.clusters for cpu in cpus_of(cluster)},
        page_sizes=tuple(sorted({pool.size_bytes for pool in hardware.huge_pages} | _pool_sizes(hardware.nodes))),
        overcommit=max(Fraction(1, 1000), Fraction(rules.cpu_overcommit).limit_denominator(1000)),
    )


def _masks(groups: Iterable[Group]) -> list[int]:
    return [mask_of(group.cpus) for group in groups]


def _clusters(hardware: Hardware) -> list[int]:
    """Cores that are closer to each other than to the rest: by the kernel's clusters, else by the last cache that not
    all share."""
    widest = max((len(core.cpus) for core in hardware.cores), default=1)
    clusters = [mask for mask in _masks(hardware.clusters) if mask.bit_count() > widest]
    if clusters:
        return clusters
    nodes = {mask_of(node.cpus) for node in hardware.nodes}
    sockets = set(_masks(hardware.sockets))
    for level in sorted({cache.level for cache in hardware.caches}, reverse=True):
        shared = {
            mask_of(cache.cpus)
            for cache in hardware.caches
            if cache.level == level and cache.type is not CacheType.INSTRUCTION and len(cache.cpus) > widest
        }
        if shared and not shared & nodes and not shared & sockets:
            return sorted(shared, key=lowest)
    return []


def _cell(index: int, place: tuple[int, int], cpus: int, rules: Rules, cores: list[int], clusters: list[int]) -> Cell:
    inside = [core & cpus for core in cores if core & cpus]
    loose = cpus & ~_union(inside)
    whole = sorted([*_disjoint(inside), *(1 << cpu for cpu in cpus_of(loose))], key=lowest)
    reserved = mask_of(rules.reserved_cpus)
    kept = reserved | mask_of(rules.shared_only_cpus)
    dedicable = [core for core in whole if not core & kept]
    sizes = {core.bit_count() for core in dedicable}
    parts = _disjoint([cluster & cpus for cluster in clusters if cluster & cpus])
    return Cell(
        index=index,
        node=place[0],
        kind=place[1],
        cpus=cpus,
        shareable=cpus & ~reserved,
        dedicable=_union(dedicable),
        cores=tuple(whole),
        clusters=tuple(parts) if parts and parts != [cpus] else (),
        threads=sizes.pop() if len(sizes) == 1 else None,
    )


def _union(masks: Iterable[int]) -> int:
    whole = 0
    for mask in masks:
        whole |= mask
    return whole


def _disjoint(masks: Iterable[int]) -> list[int]:
    """Lying hardware may put a CPU into two groups: the first keeps it."""
    seen, parts = 0, []
    for mask in masks:
        if mask & ~seen:
            parts.append(mask & ~seen)
        seen |= mask
    return sorted(parts, key=lowest)


def _node(
    one: int,
    known: Mapping[int, NumaNode],
    ids: list[int],
    cells: list[Cell],
    sockets: Mapping[int, int],
    rules: Rules,
    pools: tuple[HugePages, ...],
) -> Node:
    silicon = known.get(one)
    memory = silicon.memory_bytes if silicon is not None else 0
    capacity: dict[int | None, int] = {}
    for pool in (silicon.huge_pages if silicon is not None else ()) or pools:
        capacity[pool.size_bytes] = capacity.get(pool.size_bytes, 0) + pool.total * pool.size_bytes
    ordinary = memory - sum(capacity.values()) - rules.reserved_memory.get(one, 0)
    capacity[None] = max(0, ordinary // MIB * MIB)
    first = min((lowest(cell.cpus) for cell in cells), default=None)
    return Node(
        id=one,
        socket=-1 if first is None else sockets[first],
        cells=tuple(cell.index for cell in cells),
        capacity=capacity,
        distances={other: _distance(known, one, other) for other in ids},
    )


def _distance(known: Mapping[int, NumaNode], one: int, other: int) -> int:
    if one == other:
        return LOCAL
    for here, there in ((one, other), (other, one)):
        if here in known and there in known[here].distances:
            return max(LOCAL + 1, known[here].distances[there])
    return REMOTE


def _kinds(hardware: Hardware) -> tuple[Kind, ...]:
    """Strength is the kernel's ``cpu_capacity``, else the clock; kinds of which nothing is told count alike."""
    told = [kind.capacity or kind.max_frequency_khz or 0 for kind in hardware.cpu_kinds] or [0]
    comparable = all(kind.capacity for kind in hardware.cpu_kinds) or not any(
        kind.capacity for kind in hardware.cpu_kinds
    )
    strength = told if comparable and all(told) else [1] * len(told)
    order = sorted(range(len(strength)), key=lambda kind: (-strength[kind], kind))
    names = [kind.name for kind in hardware.cpu_kinds] or ["CPU"]
    return tuple(
        Kind(name=names[kind], power=strength[kind] * 1024 // max(strength), rank=order.index(kind))
        for kind in range(len(strength))
    )


def _pool_sizes(nodes: Iterable[NumaNode]) -> set[int]:
    return {pool.size_bytes for node in nodes for pool in node.huge_pages}
