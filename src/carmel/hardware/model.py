"""The machine as one immutable value: what the kernel, the firmware and the board say of it.

Numbers are the kernel's own. Ids of clusters and cores are only unique within their socket, so a group is known by its
CPUs. Holes in numbering, offline CPUs, nodes without memory and nodes without CPUs are normal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class CpuKind:
    """Cores that are alike. Arm's are known by MIDR_EL1 (Arm ARM, D19.2): implementer, part, variant, revision."""

    name: str
    """As people say it: ``Cortex-A72``, ``Neoverse-N1``; else what is known (``implementer 0x48, part 0xd01``)."""
    cpus: tuple[int, ...]
    implementer: int | None = None
    part: int | None = None
    variant: int | None = None
    revision: int | None = None
    capacity: int | None = None
    """Relative, 1024 the strongest (``cpu_capacity``); ``None`` where the kernel does not say."""
    max_frequency_khz: int | None = None


@dataclass(frozen=True, slots=True)
class Cpu:
    """One online logical CPU (a hardware thread), by the kernel's numbers (``/sys/devices/system/cpu/cpuN``)."""

    id: int
    socket: int
    core: int
    """``core_id``: unique within its socket (or cluster) only."""
    node: int
    """Its NUMA node; 0 where the kernel knows no NUMA."""
    die: int | None = None
    cluster: int | None = None
    kind: int = 0
    """Index into ``Hardware.cpu_kinds``."""


@dataclass(frozen=True, slots=True)
class Group:
    """Online CPUs that belong together: a socket, die, cluster or core. ``cpus`` ascend."""

    id: int
    cpus: tuple[int, ...]
    socket: int


class CacheType(StrEnum):
    DATA = "Data"
    INSTRUCTION = "Instruction"
    UNIFIED = "Unified"


@dataclass(frozen=True, slots=True)
class Cache:
    """One cache and the CPUs that share it. What the kernel does not say is ``None``."""

    level: int
    type: CacheType
    size_bytes: int | None
    cpus: tuple[int, ...]
    line_bytes: int | None = None
    ways: int | None = None


@dataclass(frozen=True, slots=True)
class HugePages:
    """The pool of one huge-page size, of a node or of the machine. ``free`` counts pages, as ``total`` does."""

    size_bytes: int
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class NumaNode:
    """An online node. ``distances`` go from it to each online node (10 is itself; ACPI 6.5, 5.2.17 SLIT)."""

    id: int
    cpus: tuple[int, ...]
    memory_bytes: int
    distances: Mapping[int, int]
    free_memory_bytes: int | None = None
    huge_pages: tuple[HugePages, ...] = ()


@dataclass(frozen=True, slots=True)
class SrIov:
    """Virtual functions that a PCI function can have, and has (``sriov_totalvfs``, ``sriov_numvfs``)."""

    total: int
    configured: int


@dataclass(frozen=True, slots=True)
class PciDevice:
    """A PCI function. Numbers as in its configuration space (PCI Local Bus 3.0, 6.2.1)."""

    address: str
    """``DDDD:BB:DD.F``."""
    vendor: int
    device: int
    class_code: int
    """24 bits: class, subclass, programming interface."""
    driver: str | None = None
    node: int | None = None
    iommu_group: int | None = None
    sriov: SrIov | None = None
    physical_function: str | None = None
    """Of a virtual function: the address of the function it belongs to."""


@dataclass(frozen=True, slots=True)
class NvmeNamespace:
    """``used_by`` says what has it: ``mounted at /``, ``swap``, ``LVM``, ``partitioned``; ``None``: free."""

    name: str
    size_bytes: int
    block_bytes: int
    used_by: str | None = None


@dataclass(frozen=True, slots=True)
class NvmeController:
    name: str
    model: str
    serial: str
    firmware: str
    pci_address: str | None
    node: int | None
    namespaces: tuple[NvmeNamespace, ...] = ()


@dataclass(frozen=True, slots=True)
class Nic:
    """A network interface with hardware below it. ``speed_mbps`` ``None``: no link, or not told."""

    name: str
    mac: str
    driver: str | None = None
    speed_mbps: int | None = None
    link: bool = False
    node: int | None = None
    pci_address: str | None = None
    sriov: SrIov | None = None


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A GPU or another engine. ``source``: its PCI address, or its device tree node (Tegra's are no PCI devices)."""

    kind: str
    """``GPU``, ``NPU``, ``video``, ``crypto``..."""
    name: str
    source: str
    driver: str | None = None
    node: int | None = None


@dataclass(frozen=True, slots=True)
class Kvm:
    """What the kernel's hypervisor offers. ``None``: not to be seen."""

    present: bool
    gic_version: int | None = None
    """Of the machine's own interrupt controller: a GICv2 caps a VM at 8 vCPUs."""
    vhe: bool | None = None
    nested: bool | None = None


class FirmwareInterface(StrEnum):
    ACPI = "ACPI"
    DEVICE_TREE = "DeviceTree"


@dataclass(frozen=True, slots=True)
class Firmware:
    """``interface`` is how the machine was described to the kernel; ``uefi`` whether UEFI started it."""

    vendor: str | None = None
    version: str | None = None
    date: str | None = None
    uefi: bool = False
    interface: FirmwareInterface | None = None


@dataclass(frozen=True, slots=True)
class Board:
    """What the machine is called. ``catalogue_id`` names its entry in ``hardware.boards``, where there is one."""

    vendor: str | None = None
    product: str | None = None
    compatible: tuple[str, ...] = ()
    """The device tree's root ``compatible``, most specific first."""
    catalogue_id: str | None = None
    dmi: Mapping[str, str] = field(default_factory=dict)
    """SMBIOS's words by the kernel's names (``product_name``). Serial numbers are among them: not for status."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """One machine. ``remarks`` say in sentences what was odd, missing or contradictory and how it was taken."""

    architecture: str
    """As in ``uname -m``: ``aarch64``, ``x86_64``."""
    page_bytes: int
    cpus: tuple[Cpu, ...]
    nodes: tuple[NumaNode, ...]
    cpu_kinds: tuple[CpuKind, ...]
    sockets: tuple[Group, ...]
    dies: tuple[Group, ...] = ()
    clusters: tuple[Group, ...] = ()
    cores: tuple[Group, ...] = ()
    caches: tuple[Cache, ...] = ()
    offline_cpus: tuple[int, ...] = ()
    huge_pages: tuple[HugePages, ...] = ()
    """The whole machine's pools; every size that the kernel offers is here, also with no page in it."""
    pci: tuple[PciDevice, ...] = ()
    nvme: tuple[NvmeController, ...] = ()
    nics: tuple[Nic, ...] = ()
    accelerators: tuple[Accelerator, ...] = ()
    kvm: Kvm = Kvm(present=False)
    firmware: Firmware = field(default_factory=Firmware)
    board: Board = field(default_factory=Board)
    remarks: tuple[str, ...] = ()

    @property
    def memory_bytes(self) -> int:
        return sum(node.memory_bytes for node in self.nodes)

    def node(self, node_id: int) -> NumaNode | None:
        return next((node for node in self.nodes if node.id == node_id), None)

    def node_of_device(self, name: str) -> int | None:
        """The node of a device by PCI address, NVMe controller or namespace, or NIC; ``None``: unknown or nowhere."""
        for device in self.pci:
            if device.address == name:
                return device.node
        for drive in self.nvme:
            if name == drive.name or any(name == one.name for one in drive.namespaces):
                return drive.node
        return next((nic.node for nic in self.nics if nic.name == name), None)
