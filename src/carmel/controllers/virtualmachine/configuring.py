"""Pure: from a VM's spec, and what was looked up for it, to what QEMU is started with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from carmel.controllers.placement.applying import cpu_config, guest_nodes, pinning_of
from carmel.controllers.placement.ground import Ground
from carmel.controllers.virtualmachine.ports import DiskSource, FunctionSource, KernelFiles, NbdSource, NicPlan
from carmel.controllers.virtualmachine.status import identities
from carmel.errors import Refused
from carmel.hypervisor.config import (
    AnyDisk,
    DiskConfig,
    FunctionDiskConfig,
    KernelFirmware,
    MachineConfig,
    NbdDiskConfig,
    UefiFirmware,
)
from carmel.placement.model import Placement
from carmel.resources.virtualmachine import Disk, DiskBus, VirtualMachine, VirtualMachineSpec
from carmel.units import parse_bytes

SERIAL_BYTES = 20
"""A virtio disk's serial number has 20 bytes (virtio specification, "Block Device", VIRTIO_BLK_T_GET_ID)."""


def machine_config(
    vm: VirtualMachine,
    spec: VirtualMachineSpec,
    placement: Placement,
    ground: Ground,
    *,
    volumes: Sequence[DiskSource],
    kernel: KernelFiles | None,
    seed: Path | None,
    nics: Sequence[NicPlan],
) -> MachineConfig:
    """``spec`` is the VM's own, or the one it was suspended with; ``placement`` was made from that. ``volumes`` are
    where its disks are, in order."""
    return MachineConfig(
        uid=vm.metadata.uid or "",
        name=vm.metadata.name,
        namespace=vm.metadata.namespace or "",
        bios_uuid=identities(vm)[0],
        cpu=cpu_config(spec.cpu, placement),
        memory_bytes=parse_bytes(spec.memory.size),
        firmware=_firmware(spec, kernel),
        disks=tuple(disk_config(disk, path) for disk, path in zip(spec.disks, volumes, strict=True)),
        cdroms=(seed,) if seed is not None else (),
        nics=tuple(plan.config for plan in nics),
        iommu=spec.iommu,
        numa=guest_nodes(placement, ground),
        page_bytes=placement.request.page_bytes,
        pinning=pinning_of(placement, ground),
    )


def disk_serial(name: str) -> str:
    """The disk's name, where it fits; else its beginning and a hash."""
    if len(name) <= SERIAL_BYTES:
        return name
    return f"{name[:11]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _firmware(spec: VirtualMachineSpec, kernel: KernelFiles | None) -> UefiFirmware | KernelFirmware:
    if kernel is None:
        return UefiFirmware()
    words = [kernel.command_line.strip(), (spec.firmware.command_line or "").strip()]
    return KernelFirmware(kernel.kernel, kernel.initrd, " ".join(word for word in words if word))


def disk_config(disk: Disk, source: DiskSource) -> AnyDisk:
    """Raises ``Refused`` (``BusNotPossible``)."""
    serial = disk_serial(disk.name)
    match source:
        case Path():
            return DiskConfig(
                name=disk.name, bus=disk.bus, path=source, format="qcow2", serial=serial, cache=disk.cache
            )
        case NbdSource():
            return NbdDiskConfig(
                name=disk.name,
                bus=disk.bus,
                host=source.host,
                port=source.port,
                export=source.export,
                psk=source.psk,
                serial=serial,
                stall_seconds=source.stall_seconds,
            )
        case FunctionSource():
            if disk.bus is not DiskBus.NVME:
                raise Refused(
                    f"the disk {disk.name} is an NVMe controller of a SmartNIC: the guest can see it as nothing else",
                    code="BusNotPossible",
                    hint="set its bus to nvme",
                    field="spec.disks",
                )
            return FunctionDiskConfig(name=disk.name, function=source.address)
