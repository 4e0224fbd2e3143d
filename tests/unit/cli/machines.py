"""Machines as a host tells of them (``status.hardware``), made of a few numbers."""

from __future__ import annotations

from collections.abc import Sequence

from carmel.cpulist import format_cpu_list
from carmel.resources.host_hardware import (
    AcceleratorStatus,
    BoardStatus,
    CpuKindStatus,
    FirmwareStatus,
    HardwareStatus,
    HugePagesStatus,
    KvmStatus,
    NicStatus,
    NumaNodeStatus,
    NvmeNamespaceStatus,
    NvmeStatus,
    SocketStatus,
)
from carmel.units import GIB


def machine(
    *,
    sockets: int = 1,
    nodes: int = 1,
    cores: int = 4,
    cluster: int | None = None,
    kind: str = "Neoverse-N1",
    memory_bytes: int = 64 * GIB,
    far: int | None = None,
) -> HardwareStatus:
    """``nodes`` in each socket, ``cores`` in each node. ``far``: the distance to the other sockets' nodes, 40 without;
    a socket's own other nodes are at 12."""
    total = sockets * nodes * cores
    return HardwareStatus(
        architecture="aarch64",
        page_size_bytes=4096,
        sockets=[
            SocketStatus(
                id=socket,
                cpus=_run(socket * nodes * cores, nodes * cores),
                cores=nodes * cores,
                cpu_model=kind,
            )
            for socket in range(sockets)
        ],
        cpu_kinds=[CpuKindStatus(name=kind, cpus=_run(0, total))],
        numa_nodes=[
            NumaNodeStatus(
                id=node,
                cpus=_run(node * cores, cores),
                memory_bytes=memory_bytes,
                distances={str(other): _distance(node, other, nodes, far or 40) for other in range(sockets * nodes)},
            )
            for node in range(sockets * nodes)
        ],
        clusters=[_run(first, cluster) for first in range(0, total, cluster)] if cluster else None,
        kvm=KvmStatus(present=True, gic_version=3),
        firmware=FirmwareStatus(uefi=True),
        board=BoardStatus(),
    )


def _run(first: int, length: int) -> str:
    return format_cpu_list(range(first, first + length))


def _distance(one: int, other: int, nodes: int, far: int) -> int:
    if one == other:
        return 10
    return 12 if one // nodes == other // nodes else far


def with_devices(hardware: HardwareStatus) -> HardwareStatus:
    """Drives at the first and the last node, a NIC at each, a GPU at none."""
    last = hardware.numa_nodes[-1].id
    places: Sequence[int] = (0, last) if last else (0,)
    return hardware.model_copy(
        update={
            "nvme": [
                NvmeStatus(
                    name=f"nvme{index}",
                    model="ES3600P V5",
                    serial=f"S{index}",
                    node=node,
                    namespaces=[
                        NvmeNamespaceStatus(
                            name=f"nvme{index}n1", size_bytes=3200 * 10**9, used_by=None if index else "mounted at /"
                        )
                    ],
                )
                for index, node in enumerate(places)
            ],
            "nics": [
                NicStatus(
                    name=f"enP{index}p1s0",
                    mac=f"52:54:00:00:00:0{index}",
                    driver="mlx5_core",
                    speed_mbps=25000 if index == 0 else None,
                    link=index == 0,
                    node=node,
                )
                for index, node in enumerate(places)
            ],
            "accelerators": [AcceleratorStatus(kind="GPU", name="GV11B", source="17000000.gpu")],
        }
    )


def with_huge_pages(hardware: HardwareStatus, size_bytes: int, each: int) -> HardwareStatus:
    """``each`` pages of that size in every node."""
    nodes = [
        node.model_copy(update={"huge_pages": [HugePagesStatus(size_bytes=size_bytes, total=each, free=each)]})
        for node in hardware.numa_nodes
    ]
    return hardware.model_copy(update={"numa_nodes": nodes})
