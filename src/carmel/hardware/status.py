"""A machine as ``Host.status.hardware`` tells it."""

from __future__ import annotations

from collections.abc import Iterable

from carmel.cpulist import format_cpu_list
from carmel.hardware.boards import catalogue
from carmel.hardware.midr import Midr
from carmel.hardware.model import (
    Accelerator,
    Board,
    Cache,
    CacheType,
    CpuKind,
    Group,
    Hardware,
    HugePages,
    Nic,
    NumaNode,
    NvmeController,
    PciDevice,
    SrIov,
)
from carmel.hardware.status_limit import within_limit
from carmel.resources.host_hardware import (
    AcceleratorStatus,
    BoardStatus,
    CacheStatus,
    CpuKindStatus,
    FirmwareStatus,
    HardwareStatus,
    HugePagesStatus,
    KvmStatus,
    NicStatus,
    NumaNodeStatus,
    NvmeNamespaceStatus,
    NvmeStatus,
    PciStatus,
    SocketStatus,
    SrIovStatus,
)


def hardware_status(hardware: Hardware) -> HardwareStatus:
    """All that is known but serial numbers of the board; of a machine with more parts than fit, what matters most."""
    return within_limit(_whole(hardware))


def _whole(hardware: Hardware) -> HardwareStatus:
    return HardwareStatus(
        architecture=hardware.architecture,
        page_size_bytes=hardware.page_bytes,
        sockets=[_socket(hardware, socket) for socket in hardware.sockets],
        cpu_kinds=[_kind(kind) for kind in hardware.cpu_kinds],
        offline_cpus=format_cpu_list(hardware.offline_cpus) or None,
        numa_nodes=[_node(node) for node in hardware.nodes],
        clusters=[format_cpu_list(cluster.cpus) for cluster in hardware.clusters] or None,
        cores=_cores(hardware.cores),
        caches=_caches(hardware.caches) or None,
        huge_pages=_huge_pages(hardware.huge_pages),
        pci=[_pci(function) for function in hardware.pci] or None,
        nvme=[_nvme(drive) for drive in hardware.nvme] or None,
        nics=[_nic(nic) for nic in hardware.nics] or None,
        accelerators=[_accelerator(one) for one in hardware.accelerators] or None,
        kvm=KvmStatus(
            present=hardware.kvm.present,
            gic_version=hardware.kvm.gic_version,
            vhe=hardware.kvm.vhe,
            nested=hardware.kvm.nested,
        ),
        firmware=FirmwareStatus(
            vendor=hardware.firmware.vendor,
            version=hardware.firmware.version,
            date=hardware.firmware.date,
            uefi=hardware.firmware.uefi,
            interface=hardware.firmware.interface,
        ),
        board=_board(hardware.board),
        remarks=list(hardware.remarks) or None,
    )


def _socket(hardware: Hardware, socket: Group) -> SocketStatus:
    def count(groups: Iterable[Group]) -> int:
        return sum(group.socket == socket.id for group in groups)

    cpus = set(socket.cpus)
    models = [kind.name for kind in hardware.cpu_kinds if cpus & set(kind.cpus)]
    return SocketStatus(
        id=socket.id,
        cpus=format_cpu_list(socket.cpus),
        cores=count(hardware.cores),
        dies=count(hardware.dies) or None,
        clusters=count(hardware.clusters) or None,
        cpu_model=" + ".join(models) or None,
    )


def _kind(kind: CpuKind) -> CpuKindStatus:
    midr = None
    if kind.implementer is not None and kind.part is not None:
        midr = f"{Midr(kind.implementer, kind.part, kind.variant or 0, kind.revision or 0).register:#010x}"
    return CpuKindStatus(
        name=kind.name,
        cpus=format_cpu_list(kind.cpus),
        midr=midr,
        capacity=kind.capacity,
        max_frequency_mhz=kind.max_frequency_khz // 1000 if kind.max_frequency_khz else None,
    )


def _node(node: NumaNode) -> NumaNodeStatus:
    return NumaNodeStatus(
        id=node.id,
        cpus=format_cpu_list(node.cpus),
        memory_bytes=node.memory_bytes,
        distances={str(other): distance for other, distance in node.distances.items()},
        huge_pages=_huge_pages(node.huge_pages),
    )


def _huge_pages(pools: tuple[HugePages, ...]) -> list[HugePagesStatus] | None:
    return [HugePagesStatus(size_bytes=one.size_bytes, total=one.total, free=one.free) for one in pools] or None


def _cores(cores: tuple[Group, ...]) -> list[str] | None:
    if all(len(core.cpus) == 1 for core in cores):
        return None
    return [format_cpu_list(core.cpus) for core in cores]


def _caches(caches: tuple[Cache, ...]) -> list[CacheStatus]:
    alike: dict[tuple[int, CacheType, int | None], list[str]] = {}
    for cache in caches:
        alike.setdefault((cache.level, cache.type, cache.size_bytes), []).append(format_cpu_list(cache.cpus))
    return [
        CacheStatus(level=level, type=type_, size_bytes=size, cpus=cpus) for (level, type_, size), cpus in alike.items()
    ]


def _sriov(sriov: SrIov | None) -> SrIovStatus | None:
    return SrIovStatus(total=sriov.total, configured=sriov.configured) if sriov else None


def _pci(function: PciDevice) -> PciStatus:
    return PciStatus(
        address=function.address,
        class_code=f"{function.class_code:06x}",
        vendor_id=f"{function.vendor:04x}",
        device_id=f"{function.device:04x}",
        driver=function.driver,
        node=function.node,
        iommu_group=function.iommu_group,
        sriov=_sriov(function.sriov),
        physical_function=function.physical_function,
    )


def _nvme(drive: NvmeController) -> NvmeStatus:
    return NvmeStatus(
        name=drive.name,
        model=drive.model,
        serial=drive.serial,
        firmware=drive.firmware or None,
        pci_address=drive.pci_address,
        node=drive.node,
        namespaces=[
            NvmeNamespaceStatus(name=one.name, size_bytes=one.size_bytes, used_by=one.used_by)
            for one in drive.namespaces
        ]
        or None,
    )


def _nic(nic: Nic) -> NicStatus:
    return NicStatus(
        name=nic.name,
        mac=nic.mac,
        driver=nic.driver,
        speed_mbps=nic.speed_mbps,
        link=nic.link,
        node=nic.node,
        pci_address=nic.pci_address,
        sriov=_sriov(nic.sriov),
    )


def _accelerator(one: Accelerator) -> AcceleratorStatus:
    return AcceleratorStatus(kind=one.kind, name=one.name, source=one.source, driver=one.driver, node=one.node)


def _board(board: Board) -> BoardStatus:
    known = catalogue().get(board.catalogue_id) if board.catalogue_id else None
    return BoardStatus(
        vendor=board.vendor,
        product=board.product,
        compatible=list(board.compatible) or None,
        catalogue_id=board.catalogue_id,
        name=known.name if known else None,
        quirks=[*known.limits, *known.quirks] or None if known else None,
    )
