"""Sockets, dies, clusters and cores (Linux, Documentation/admin-guide/cputopology.rst).

Sockets, dies and clusters are taken by their ids. Threads of a core are taken by the kernel's lists, since it makes
those of more than ids; where lists contradict each other, each CPU is its own core.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace

from carmel.cpulist import format_cpu_list
from carmel.hardware import devicetree
from carmel.hardware.cpus import CPUS
from carmel.hardware.model import Cpu, CpuKind, Group
from carmel.hardware.sysroot import Sysroot

_NO_CLUSTER = 0xFFFF
"""x86's word for none (arch/x86/include/asm/apicdef.h: BAD_APICID)."""


@dataclass(frozen=True, slots=True)
class Topology:
    cpus: tuple[Cpu, ...]
    sockets: tuple[Group, ...]
    dies: tuple[Group, ...]
    clusters: tuple[Group, ...]
    cores: tuple[Group, ...]


def read_topology(
    root: Sysroot, online: tuple[int, ...], kinds: tuple[CpuKind, ...], nodes: Mapping[int, int]
) -> Topology:
    """``nodes``: the NUMA node of each CPU."""
    kind_of = {cpu: index for index, kind in enumerate(kinds) for cpu in kind.cpus}
    cpus = {cpu: _cpu(root, cpu, nodes[cpu], kind_of[cpu]) for cpu in online}
    _say_unknown(root, cpus)
    cpus = {number: _settled(cpu) for number, cpu in _by_device_tree(root, cpus).items()}
    cores = _cores(root, cpus)
    clusters = _groups(cpus, lambda cpu: cpu.cluster, lambda cpu: (cpu.socket, cpu.die, cpu.cluster))
    if {one.cpus for one in clusters} == {one.cpus for one in cores}:
        clusters = ()
    dies = _groups(cpus, lambda cpu: cpu.die, lambda cpu: (cpu.socket, cpu.die))
    sockets = _groups(cpus, lambda cpu: cpu.socket, lambda cpu: cpu.socket)
    return Topology(
        cpus=tuple(cpus.values()),
        sockets=sockets,
        dies=dies if len(dies) > len(sockets) else (),
        clusters=clusters,
        cores=cores,
    )


_UNKNOWN = -1


def _cpu(root: Sysroot, cpu: int, node: int, kind: int) -> Cpu:
    folder = f"{CPUS}/cpu{cpu}/topology"

    def number(name: str) -> int | None:
        found = root.number(f"{folder}/{name}")
        return found if found is not None and 0 <= found < 2**32 - 1 else None

    socket, core, cluster = number("physical_package_id"), number("core_id"), number("cluster_id")
    return Cpu(
        id=cpu,
        socket=_UNKNOWN if socket is None else socket,
        core=_UNKNOWN if core is None else core,
        node=node,
        die=number("die_id"),
        cluster=None if cluster == _NO_CLUSTER else cluster,
        kind=kind,
    )


def _settled(cpu: Cpu) -> Cpu:
    return replace(cpu, socket=max(cpu.socket, 0), core=cpu.id if cpu.core == _UNKNOWN else cpu.core)


def _say_unknown(root: Sysroot, cpus: Mapping[int, Cpu]) -> None:
    homeless = [number for number, cpu in cpus.items() if cpu.socket == _UNKNOWN]
    if homeless:
        root.remark(f"Nothing says in which socket CPUs {format_cpu_list(homeless)} are: taken to be in socket 0.")
    coreless = [number for number, cpu in cpus.items() if cpu.core == _UNKNOWN]
    if coreless:
        root.remark(f"Nothing says of which core CPUs {format_cpu_list(coreless)} are: each is taken as its own.")


def _by_device_tree(root: Sysroot, cpus: dict[int, Cpu]) -> dict[int, Cpu]:
    """Linux before 6.0 took each cluster of a device tree's cpu-map for a socket (drivers/base/arch_topology.c), and
    Jetson's kernels are older: a Xavier would be a machine of four sockets."""
    tree = devicetree.base(root)
    if tree is None or len({cpu.socket for cpu in cpus.values()}) == 1:
        return cpus
    found = devicetree.cpu_map(root, tree, tuple(cpus))
    counted = len({cpu.socket for cpu in cpus.values()})
    if not found or len({socket for socket, _ in found.values()}) >= counted:
        return cpus
    root.remark(f"The kernel counts {counted} sockets, one for each cluster: sockets were taken from the device tree.")
    return {number: replace(cpu, socket=found[number][0], cluster=found[number][1]) for number, cpu in cpus.items()}


def _groups(
    cpus: Mapping[int, Cpu], number: Callable[[Cpu], int | None], key: Callable[[Cpu], Hashable]
) -> tuple[Group, ...]:
    members: dict[Hashable, list[Cpu]] = {}
    for cpu in cpus.values():
        if number(cpu) is not None:
            members.setdefault(key(cpu), []).append(cpu)
    return tuple(
        Group(id=number(group[0]) or 0, cpus=tuple(cpu.id for cpu in group), socket=group[0].socket)
        for group in members.values()
    )


def _cores(root: Sysroot, cpus: Mapping[int, Cpu]) -> tuple[Group, ...]:
    listed = {cpu: _threads(root, cpu, cpus) for cpu in cpus}
    groups: list[Group] = []
    doubtful: list[int] = []
    for number, cpu in cpus.items():
        threads = listed[number]
        trusted = number in threads and all(
            listed[other] == threads and cpus[other].socket == cpu.socket for other in threads
        )
        if not trusted:
            doubtful.append(number)
            groups.append(Group(id=cpu.core, cpus=(number,), socket=cpu.socket))
        elif number == threads[0]:
            groups.append(Group(id=cpu.core, cpus=threads, socket=cpu.socket))
    if doubtful:
        root.remark(
            f"What is said of the cores of CPUs {format_cpu_list(doubtful)} contradicts itself or crosses sockets: "
            "each is taken as a core of its own."
        )
    return tuple(groups)


def _threads(root: Sysroot, cpu: int, cpus: Mapping[int, Cpu]) -> tuple[int, ...]:
    """Online CPUs of the same core, this one among them unless the kernel's list denies it."""
    folder = f"{CPUS}/cpu{cpu}/topology"
    found = root.numbers(f"{folder}/core_cpus_list")
    if found is None:
        found = root.numbers(f"{folder}/thread_siblings_list")
    return (cpu,) if found is None else tuple(one for one in found if one in cpus)
