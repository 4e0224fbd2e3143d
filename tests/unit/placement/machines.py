"""Machines for tests of placement, and VMs on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from carmel.hardware.model import Cpu, CpuKind, Group, Hardware, HugePages, NumaNode
from carmel.placement.model import GuestNodeWish, Placement, Refusal, Request
from carmel.placement.occupancy import Occupancy
from carmel.placement.placer import place
from carmel.resources.virtualmachine import CpuPolicy
from carmel.units import GIB

SHARED, DEDICATED = CpuPolicy.SHARED, CpuPolicy.DEDICATED


@dataclass(frozen=True)
class NodeShape:
    """A node of a machine that is to be made. ``kinds``: cores of each kind. ``pools``: pages by size."""

    cores: int = 4
    threads: int = 1
    memory: int = 8 * GIB
    cluster: int | None = None
    pools: Mapping[int, int] = field(default_factory=dict)
    kinds: Sequence[int] = ()
    socket: int | None = None


def machine(
    *nodes: NodeShape, distances: Sequence[Sequence[int]] | None = None, offline: frozenset[int] = frozenset()
) -> Hardware:
    """One socket for each node unless told otherwise. CPUs are numbered as Linux does: first threads first."""
    cpus: list[Cpu] = []
    cores: list[Group] = []
    clusters: list[Group] = []
    numbers, seconds = count(), count(sum(shape.cores for shape in nodes))
    sockets = [shape.socket if shape.socket is not None else index for index, shape in enumerate(nodes)]
    for index, shape in enumerate(nodes):
        group: list[int] = []
        for core in range(shape.cores):
            kind = shape.kinds[core] if shape.kinds else 0
            both = (next(numbers), *(next(seconds) for _ in range(shape.threads - 1)))
            threads = tuple(cpu for cpu in both if cpu not in offline)
            if not threads:
                continue
            cpus += [Cpu(cpu, sockets[index], core, index, kind=kind) for cpu in threads]
            cores.append(Group(core, tuple(sorted(threads)), sockets[index]))
            group += threads
            if group and shape.cluster and (core + 1) % shape.cluster == 0:
                clusters.append(Group(core // shape.cluster, tuple(sorted(group)), sockets[index]))
                group = []
    cpus.sort(key=lambda cpu: cpu.id)
    kinds = sorted({cpu.kind for cpu in cpus} | {0})
    return Hardware(
        architecture="aarch64",
        page_bytes=4096,
        cpus=tuple(cpus),
        nodes=tuple(_node(index, shape, cpus, len(nodes), distances) for index, shape in enumerate(nodes)),
        cpu_kinds=tuple(
            CpuKind(f"Kind-{kind}", tuple(cpu.id for cpu in cpus if cpu.kind == kind), capacity=1024 >> kind)
            for kind in kinds
        ),
        sockets=tuple(
            Group(socket, tuple(cpu.id for cpu in cpus if cpu.socket == socket), socket)
            for socket in sorted({cpu.socket for cpu in cpus})
        ),
        clusters=tuple(clusters),
        offline_cpus=tuple(sorted(offline)),
        cores=tuple(cores),
        huge_pages=tuple(
            HugePages(size, sum(shape.pools.get(size, 0) for shape in nodes), 0)
            for size in sorted({size for shape in nodes for size in shape.pools})
        ),
    )


def _node(
    index: int, shape: NodeShape, cpus: Sequence[Cpu], nodes: int, distances: Sequence[Sequence[int]] | None
) -> NumaNode:
    return NumaNode(
        id=index,
        cpus=tuple(cpu.id for cpu in cpus if cpu.node == index),
        memory_bytes=shape.memory,
        distances=dict(enumerate(distances[index]))
        if distances is not None
        else {other: 10 if other == index else 20 for other in range(nodes)},
        huge_pages=tuple(HugePages(size, total, total) for size, total in shape.pools.items()),
    )


def request(name: str = "vm", vcpus: int = 1, memory: int = GIB, **wishes: object) -> Request:
    return Request(uid=name, name=f"default/{name}", vcpus=vcpus, memory_bytes=memory, **wishes)  # type: ignore[arg-type]


def wishes(*nodes: tuple[int, int]) -> tuple[GuestNodeWish, ...]:
    """Guest nodes from ``(vCPUs, bytes)``."""
    made, first = [], 0
    for index, (vcpus, memory) in enumerate(nodes):
        distances = tuple(10 if other == index else 20 for other in range(len(nodes)))
        made.append(GuestNodeWish(tuple(range(first, first + vcpus)), memory, distances))
        first += vcpus
    return tuple(made)


def placed(occupancy: Occupancy, wanted: Request) -> Placement:
    answer = place(occupancy.silicon, occupancy, wanted)
    assert isinstance(answer, Placement), answer
    return answer


def refused(occupancy: Occupancy, wanted: Request) -> Refusal:
    answer = place(occupancy.silicon, occupancy, wanted)
    assert isinstance(answer, Refusal), answer
    return answer


def filled(occupancy: Occupancy, *requests: Request) -> Occupancy:
    for wanted in requests:
        occupancy = occupancy.plus(placed(occupancy, wanted))
    return occupancy
