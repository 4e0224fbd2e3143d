"""Machines with VMs on them, to be drawn: one for each sort of silicon that looks different."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from carmel.cli.picture_scene import Scene, Tenant, Use, arrange
from carmel.resources.host_hardware import CpuKindStatus, NumaNodeStatus, SocketStatus
from carmel.units import GIB, MIB
from tests.unit.cli.machines import machine, with_devices, with_huge_pages


def own(name: str, cpus: Iterable[int], memory: dict[int, int], page_bytes: int | None = None) -> Tenant:
    return Tenant(name, True, tuple((cpu,) for cpu in cpus), memory, page_bytes)


def shared(name: str, vcpus: int, cpus: Iterable[int], memory: dict[int, int]) -> Tenant:
    return Tenant(name, False, (tuple(cpus),) * vcpus, memory)


def two_sockets() -> Scene:
    """Mt. Jade with 2 x 128 cores: one VM wider than a socket's rest, and some within one."""
    left = [*range(1, 4), *range(12, 40), *range(50, 128)]
    tenants = [
        own("database", range(4, 12), {0: 32 * GIB}),
        shared("web-1", 4, left, {0: 4 * GIB}),
        shared("web-2", 2, left, {0: 1536 * MIB}),
        own("simulation", [*range(40, 50), *range(130, 140)], {0: 10 * GIB, 1: 10 * GIB}),
    ]
    hardware = with_devices(machine(sockets=2, cores=128, cluster=2, memory_bytes=256 * GIB, far=20))
    return arrange(hardware, tenants, Use(reserved=frozenset({0, 128})))


def eight_nodes() -> Scene:
    """An Altra in quadrant mode, two sockets, with huge pages."""
    hardware = machine(sockets=2, nodes=4, cores=20, cluster=4, memory_bytes=64 * GIB)
    tenants = [own("cache", range(20, 28), {1: 16 * GIB}, GIB), shared("ci", 6, range(60, 80), {3: 12 * GIB})]
    return arrange(with_huge_pages(hardware, GIB, 32), tenants, Use(reserved=frozenset({0, 80})))


def raspberry_pi() -> Scene:
    hardware = machine(cores=4, kind="Cortex-A72", memory_bytes=4 * GIB)
    return arrange(hardware, [shared("web", 2, range(4), {0: GIB}), shared("dns", 1, range(4), {0: 256 * MIB})], Use())


def big_little() -> Scene:
    """Four small and two pairs of large cores, as on an RK3588."""
    hardware = machine(cores=8, kind="Cortex-A55", memory_bytes=16 * GIB).model_copy(
        update={
            "sockets": [SocketStatus(id=0, cpus="0-7", cores=8)],
            "cpu_kinds": [
                CpuKindStatus(name="Cortex-A55", cpus="0-3", capacity=530),
                CpuKindStatus(name="Cortex-A76", cpus="4-7", capacity=1024),
            ],
            "clusters": ["0-3", "4-5", "6-7"],
        }
    )
    tenants = [own("router", [4, 5], {0: 2 * GIB}), shared("home", 2, range(4), {0: GIB})]
    return arrange(hardware, tenants, Use(unplaced=("old-vm",)))


def no_numa() -> Scene:
    """Two sockets that the firmware tells as one node."""
    hardware = machine(sockets=2, cores=16, cluster=4).model_copy(
        update={"numa_nodes": [NumaNodeStatus(id=0, cpus="0-31", memory_bytes=128 * GIB, distances={"0": 10})]}
    )
    return arrange(with_devices(hardware), [shared("web", 8, range(32), {0: 8 * GIB})], Use())


def threads() -> Scene:
    """Two threads a core, numbered as x86 firmware does; some given to a VM that is not to be seen; some offline."""
    hardware = machine(cores=16, kind="Xeon").model_copy(
        update={
            "sockets": [SocketStatus(id=0, cpus="0-15", cores=8, cpu_model="Xeon")],
            "cores": [f"{core},{core + 8}" for core in range(8)],
            "offline_cpus": "16-17",
        }
    )
    return arrange(
        hardware,
        [own("web", [1, 9], {0: GIB})],
        Use(reserved=frozenset({0, 8}), free=frozenset(range(16)) - {0, 8, 1, 9, 2, 10}),
    )


def odd_nodes() -> Scene:
    """A node without memory, one without CPUs, one that no distance is told of; a VM that floats over two."""
    hardware = machine(sockets=2, cores=4, memory_bytes=8 * GIB)
    first, second = hardware.numa_nodes
    nodes = [
        first,
        second.model_copy(update={"memory_bytes": 0}),
        NumaNodeStatus(id=5, cpus="", memory_bytes=32 * GIB, distances={}),
    ]
    return arrange(
        with_devices(hardware.model_copy(update={"numa_nodes": nodes})),
        [shared("everywhere", 3, range(8), {0: GIB, 5: GIB}), own("far-memory", [4, 5], {5: 16 * GIB})],
        Use(),
    )


def crowded() -> Scene:
    """More VMs than letters, and more than anybody reads."""
    tenants = [shared(f"vm-{number:02}", 1 + number % 3, range(8, 64), {0: GIB}) for number in range(70)]
    tenants.append(own("a-name-of-which-the-end-is-cut-off-in-the-list-of-vms", range(8), {0: 2 * GIB}))
    return arrange(machine(cores=64, memory_bytes=128 * GIB), tenants, Use())


def large() -> Scene:
    """1,024 CPUs in four sockets."""
    return arrange(machine(sockets=4, cores=256, cluster=8, memory_bytes=512 * GIB), [], Use())


SCENES: dict[str, Callable[[], Scene]] = {
    "two-sockets": two_sockets,
    "eight-nodes": eight_nodes,
    "raspberry-pi": raspberry_pi,
    "big-little": big_little,
    "no-numa": no_numa,
    "threads": threads,
    "odd-nodes": odd_nodes,
    "crowded": crowded,
    "large": large,
}
