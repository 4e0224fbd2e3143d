"""What ``Host.status.hardware`` says of the machine: sockets, NUMA nodes, caches and devices."""

from __future__ import annotations

from pydantic import Field

from carmel.resources.base import Model


class SocketStatus(Model):
    """A CPU package. ``cpus`` are online CPUs (``0-79``)."""

    id: int
    cpus: str
    cores: int
    dies: int | None = None
    clusters: int | None = None
    cpu_model: str | None = None


class CpuKindStatus(Model):
    """Cores that are alike (big.LITTLE machines have several kinds)."""

    name: str
    cpus: str
    midr: str | None = None
    capacity: int | None = None
    max_frequency_mhz: int | None = None


class HugePagesStatus(Model):
    size_bytes: int
    total: int
    free: int


class NumaNodeStatus(Model):
    """A NUMA node. ``distances`` go from it to each node, by its number; 10 is itself."""

    id: int
    cpus: str
    memory_bytes: int
    distances: dict[str, int]
    huge_pages: list[HugePagesStatus] | None = None


class CacheStatus(Model):
    """Caches that are alike: one entry of ``cpus`` for each."""

    level: int
    type: str
    size_bytes: int | None = None
    cpus: list[str]


class SrIovStatus(Model):
    """Virtual functions that there can be, and are."""

    total: int
    configured: int


class PciStatus(Model):
    """A PCI function; ids in hexadecimal, as lspci -n shows them."""

    address: str
    class_code: str
    vendor_id: str = Field(alias="vendorID")
    device_id: str = Field(alias="deviceID")
    driver: str | None = None
    node: int | None = None
    iommu_group: int | None = None
    sriov: SrIovStatus | None = None
    physical_function: str | None = None


class NvmeNamespaceStatus(Model):
    """``used_by`` absent: free."""

    name: str
    size_bytes: int
    used_by: str | None = None


class NvmeStatus(Model):
    name: str
    model: str
    serial: str
    firmware: str | None = None
    pci_address: str | None = None
    node: int | None = None
    namespaces: list[NvmeNamespaceStatus] | None = None


class NicStatus(Model):
    """A network interface with hardware below it."""

    name: str
    mac: str
    driver: str | None = None
    speed_mbps: int | None = None
    link: bool = False
    node: int | None = None
    pci_address: str | None = None
    sriov: SrIovStatus | None = None


class AcceleratorStatus(Model):
    kind: str
    name: str
    source: str
    driver: str | None = None
    node: int | None = None


class KvmStatus(Model):
    present: bool
    gic_version: int | None = None
    vhe: bool | None = None
    nested: bool | None = None


class FirmwareStatus(Model):
    vendor: str | None = None
    version: str | None = None
    date: str | None = None
    uefi: bool
    interface: str | None = None


class BoardStatus(Model):
    """``catalogue_id`` is what `carmel plan --board` calls it; ``name`` and ``quirks`` are the catalogue's."""

    vendor: str | None = None
    product: str | None = None
    compatible: list[str] | None = None
    catalogue_id: str | None = Field(default=None, alias="catalogueID")
    name: str | None = None
    quirks: list[str] | None = None


class HardwareStatus(Model):
    """The machine: its silicon, memory and devices. ``remarks`` say what was odd about it.

    ``clusters`` and ``cores`` are the CPUs of each, absent where the kernel knows no clusters, and where every core is
    one CPU.
    """

    architecture: str
    page_size_bytes: int
    sockets: list[SocketStatus]
    cpu_kinds: list[CpuKindStatus]
    offline_cpus: str | None = None
    numa_nodes: list[NumaNodeStatus]
    clusters: list[str] | None = None
    cores: list[str] | None = None
    caches: list[CacheStatus] | None = None
    huge_pages: list[HugePagesStatus] | None = None
    pci: list[PciStatus] | None = None
    nvme: list[NvmeStatus] | None = None
    nics: list[NicStatus] | None = None
    accelerators: list[AcceleratorStatus] | None = None
    kvm: KvmStatus
    firmware: FirmwareStatus
    board: BoardStatus
    remarks: list[str] | None = None
