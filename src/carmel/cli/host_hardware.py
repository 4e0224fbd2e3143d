"""The machine of a host elsewhere, from what its ``status.hardware`` tells: the way back of ``hardware.status``.

What a status does not tell is absent: free memory, NUMA distances to nodes that are offline, the dies' CPUs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from carmel.cpulist import parse_cpu_list
from carmel.hardware.model import (
    Accelerator,
    Board,
    Cache,
    CacheType,
    Cpu,
    CpuKind,
    Firmware,
    FirmwareInterface,
    Group,
    Hardware,
    HugePages,
    Kvm,
    Nic,
    NumaNode,
    NvmeController,
    NvmeNamespace,
    PciDevice,
    SrIov,
)
from carmel.resources.host_hardware import (
    HardwareStatus,
    HugePagesStatus,
    NicStatus,
    NumaNodeStatus,
    NvmeStatus,
    PciStatus,
    SrIovStatus,
)


def hardware_told(told: HardwareStatus) -> Hardware:
    """Raises ``ValueError`` for lists of CPUs and numbers that are none."""
    cpus = tuple(_cpus(told))
    return Hardware(
        architecture=told.architecture,
        page_bytes=told.page_size_bytes,
        cpus=cpus,
        nodes=tuple(_node(node) for node in told.numa_nodes),
        cpu_kinds=tuple(
            CpuKind(
                name=kind.name,
                cpus=parse_cpu_list(kind.cpus),
                capacity=kind.capacity,
                max_frequency_khz=kind.max_frequency_mhz * 1000 if kind.max_frequency_mhz is not None else None,
            )
            for kind in told.cpu_kinds
        ),
        sockets=tuple(Group(socket.id, parse_cpu_list(socket.cpus), socket.id) for socket in told.sockets),
        clusters=_groups(told.clusters or (), cpus),
        cores=_groups(told.cores if told.cores is not None else [str(cpu.id) for cpu in cpus], cpus),
        caches=tuple(
            Cache(cache.level, CacheType(cache.type), cache.size_bytes, parse_cpu_list(sharing))
            for cache in told.caches or ()
            for sharing in cache.cpus
        ),
        offline_cpus=parse_cpu_list(told.offline_cpus or ""),
        huge_pages=_huge_pages(told.huge_pages),
        pci=tuple(_pci(one) for one in told.pci or ()),
        nvme=tuple(_nvme(one) for one in told.nvme or ()),
        nics=tuple(_nic(one) for one in told.nics or ()),
        accelerators=tuple(
            Accelerator(one.kind, one.name, one.source, one.driver, one.node) for one in told.accelerators or ()
        ),
        kvm=Kvm(told.kvm.present, told.kvm.gic_version, told.kvm.vhe, told.kvm.nested),
        firmware=Firmware(
            told.firmware.vendor,
            told.firmware.version,
            told.firmware.date,
            told.firmware.uefi,
            FirmwareInterface(told.firmware.interface) if told.firmware.interface is not None else None,
        ),
        board=Board(told.board.vendor, told.board.product, tuple(told.board.compatible or ()), told.board.catalogue_id),
        remarks=tuple(told.remarks or ()),
    )


def _cpus(told: HardwareStatus) -> Iterator[Cpu]:
    """Ascending. A CPU that is in no node's list is in node 0, as where the kernel knows no NUMA."""
    kinds = _index([kind.cpus for kind in told.cpu_kinds])
    clusters, cores = _index(told.clusters or ()), _index(told.cores or ())
    nodes = {cpu: node.id for node in told.numa_nodes for cpu in parse_cpu_list(node.cpus)}
    sockets = {cpu: socket.id for socket in told.sockets for cpu in parse_cpu_list(socket.cpus)}
    for cpu in sorted(sockets):
        yield Cpu(
            id=cpu,
            socket=sockets[cpu],
            core=cores.get(cpu, cpu),
            node=nodes.get(cpu, 0),
            cluster=clusters.get(cpu),
            kind=kinds.get(cpu, 0),
        )


def _index(groups: Sequence[str]) -> dict[int, int]:
    return {cpu: index for index, cpus in enumerate(groups) for cpu in parse_cpu_list(cpus)}


def _groups(told: Sequence[str], cpus: Sequence[Cpu]) -> tuple[Group, ...]:
    sockets = {cpu.id: cpu.socket for cpu in cpus}
    members = [parse_cpu_list(one) for one in told]
    return tuple(Group(index, one, sockets.get(one[0], 0)) for index, one in enumerate(members) if one)


def _node(node: NumaNodeStatus) -> NumaNode:
    return NumaNode(
        id=node.id,
        cpus=parse_cpu_list(node.cpus),
        memory_bytes=node.memory_bytes,
        distances={int(other): far for other, far in node.distances.items()},
        huge_pages=_huge_pages(node.huge_pages),
    )


def _huge_pages(told: Sequence[HugePagesStatus] | None) -> tuple[HugePages, ...]:
    return tuple(HugePages(pool.size_bytes, pool.total, pool.free) for pool in told or ())


def _pci(one: PciStatus) -> PciDevice:
    return PciDevice(
        address=one.address,
        vendor=int(one.vendor_id, 16),
        device=int(one.device_id, 16),
        class_code=int(one.class_code, 16),
        driver=one.driver,
        node=one.node,
        iommu_group=one.iommu_group,
        sriov=_sriov(one.sriov),
        physical_function=one.physical_function,
    )


def _nvme(one: NvmeStatus) -> NvmeController:
    return NvmeController(
        name=one.name,
        model=one.model,
        serial=one.serial,
        firmware=one.firmware or "",
        pci_address=one.pci_address,
        node=one.node,
        namespaces=tuple(
            NvmeNamespace(space.name, space.size_bytes, block_bytes=0, used_by=space.used_by)
            for space in one.namespaces or ()
        ),
    )


def _nic(one: NicStatus) -> Nic:
    return Nic(
        name=one.name,
        mac=one.mac,
        driver=one.driver,
        speed_mbps=one.speed_mbps,
        link=one.link,
        node=one.node,
        pci_address=one.pci_address,
        sriov=_sriov(one.sriov),
    )


def _sriov(told: SrIovStatus | None) -> SrIov | None:
    return SrIov(told.total, told.configured) if told is not None else None
