"""What QEMU is to be started with, as values: everything looked up, nothing left to decide but QEMU's own words.

The controller of VirtualMachines makes a ``MachineConfig`` out of resources; ``commandline`` turns it into arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

from carmel.hypervisor.psk import Psk
from carmel.resources.virtualmachine import DiskBus, DiskCache


class Accelerator(StrEnum):
    KVM = "kvm"
    HVF = "hvf"
    TCG = "tcg"


@dataclass(frozen=True, slots=True)
class CpuConfig:
    """vCPUs: ``count`` is the product of the rest. ``model`` ``None``: what the accelerator does best."""

    count: int
    sockets: int
    clusters: int
    cores: int
    threads: int
    model: str | None = None
    nested: bool = False
    """The guest may run VMs of its own (Arm: EL2)."""
    gic_version: int | None = None
    """Arm, emulated only: 2 or 3. ``None``: what the accelerator does best."""


@dataclass(frozen=True, slots=True)
class GuestNodeConfig:
    """A NUMA node of the guest. ``host_node`` backs its memory; ``None``: memory comes from anywhere.

    ``distances`` go to each guest node, in order.
    """

    vcpus: tuple[int, ...]
    memory_bytes: int
    distances: tuple[int, ...]
    host_node: int | None = None


@dataclass(frozen=True, slots=True)
class Pinning:
    """Where the threads of a VM may run and its memory may lie, by the host's numbers.

    ``vcpus[i]`` are the CPUs of vCPU ``i``; ``emulator`` those of all other threads, helpers included; ``memory_nodes``
    the cpuset's. The cpuset's CPUs are all of these together. ``exclusive``: the vCPUs' CPUs are theirs alone.
    """

    vcpus: tuple[tuple[int, ...], ...]
    emulator: tuple[int, ...]
    memory_nodes: tuple[int, ...]
    exclusive: bool = False

    @property
    def cpus(self) -> tuple[int, ...]:
        """All of them, ascending."""
        return tuple(sorted({cpu for cpus in (*self.vcpus, self.emulator) for cpu in cpus}))


@dataclass(frozen=True, slots=True)
class UefiFirmware:
    """UEFI with ACPI. The variables lie in ``MachinePaths.nvram`` and survive."""


@dataclass(frozen=True, slots=True)
class KernelFirmware:
    """A kernel started directly, with a device tree."""

    kernel: Path
    initrd: Path | None
    command_line: str


@dataclass(frozen=True, slots=True)
class DiskConfig:
    """One disk in a file, or a block device of the host. ``serial`` is what the guest sees in /dev/disk/by-id.

    ``cache`` ``None``: past the host's page cache if the file system can.
    """

    name: str
    bus: DiskBus
    path: Path
    format: Literal["qcow2", "raw"]
    serial: str
    read_only: bool = False
    cache: DiskCache | None = None


@dataclass(frozen=True, slots=True)
class NbdDiskConfig:
    """One disk that an NBD server exports, by TLS: ``psk`` is how both know each other.

    While the server is away, reads and writes wait, and fail after ``stall_seconds``.
    """

    name: str
    bus: DiskBus
    host: str
    port: int
    export: str
    psk: Psk
    serial: str
    stall_seconds: int = 600
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class FunctionDiskConfig:
    """One disk that is a PCI function of the host (an NVMe controller), driven by vfio-pci, by its PCI address."""

    name: str
    function: str


AnyDisk = DiskConfig | NbdDiskConfig | FunctionDiskConfig


@dataclass(frozen=True, slots=True)
class Helper:
    """A process that a VM needs beside QEMU (passt). Started before it, belongs to its unit, ends with it.

    It is ready when ``socket`` can be connected to.
    """

    name: str
    argv: tuple[str, ...]
    socket: Path


@dataclass(frozen=True, slots=True)
class NicConfig:
    """One NIC. ``netdev`` are the options of ``-netdev`` without ``id`` (``{"type": "user", ...}``).

    ``descriptors`` are open files that these options name by their numbers: QEMU gets them under the same numbers, and
    whoever opened them closes them when ``launch`` is over. ``queues`` are pairs. ``function``: the PCI address of the
    host's function that is the NIC, in place of a virtual one; ``netdev`` is empty then. ``group``: one that QEMU must
    be in to come to what ``netdev`` names, where it has an account of its own. ``mtu``: in bytes, what the guest is
    told of its network (virtio specification, VIRTIO_NET_F_MTU); ``None``: nothing.
    """

    name: str
    mac: str
    netdev: Mapping[str, object]
    helper: Helper | None = None
    descriptors: tuple[int, ...] = ()
    queues: int = 1
    function: str | None = None
    group: int | None = None
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """One VM."""

    uid: str
    name: str
    namespace: str
    bios_uuid: str
    cpu: CpuConfig
    memory_bytes: int
    firmware: UefiFirmware | KernelFirmware
    disks: tuple[AnyDisk, ...] = ()
    cdroms: tuple[Path, ...] = ()
    """Read-only ISO images (the cloud-init seed)."""
    nics: tuple[NicConfig, ...] = ()
    numa: tuple[GuestNodeConfig, ...] = ()
    """The guest's NUMA nodes. One: the guest sees none, but its memory may be bound. Empty: neither."""
    iommu: bool = False
    """The guest has an IOMMU, and each NIC a port of its own: it can be given to a VM in the guest."""
    page_bytes: int | None = None
    """Back memory with huge pages of this size; ``None``: ordinary ones."""
    pinning: Pinning | None = None
    """``None``: its threads may run anywhere."""
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def functions(self) -> tuple[str, ...]:
        """PCI addresses of the host's functions that the VM gets."""
        nics = (nic.function for nic in self.nics if nic.function is not None)
        return (*nics, *(disk.function for disk in self.disks if isinstance(disk, FunctionDiskConfig)))
