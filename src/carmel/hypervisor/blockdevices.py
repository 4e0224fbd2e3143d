"""Disks and CD-ROMs on the command line: a block node for each file, a device for each disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from carmel.errors import Refused
from carmel.hypervisor.config import DiskConfig, MachineConfig
from carmel.hypervisor.layers import Layer
from carmel.hypervisor.slots import Slots
from carmel.resources.virtualmachine import DiskBus

_PORTS_PER_USB = 15
"""qemu-xhci has at most 15 ports of each speed (hw/usb/hcd-xhci.h, XHCI_MAXPORTS_3)."""
_USB_CONTROLLERS = 2


def disk_arguments(config: MachineConfig, layers: Mapping[str, Sequence[Layer]], slots: Slots) -> list[str]:
    """Every disk and CD-ROM, and the controllers they need. Booting tries disks first, in their order."""
    words = _controllers(config.disks, slots)
    on_bus = dict.fromkeys(DiskBus, 0)
    for index, disk in enumerate(config.disks):
        words += _nodes(f"disk{index}", layers[disk.name], read_only=disk.read_only)
        device = {
            "id": f"disk{index}-dev",
            "drive": f"disk{index}",
            "serial": disk.serial,
            "bootindex": index + 1,
            **_on_bus(disk.bus, on_bus[disk.bus], slots),
        }
        on_bus[disk.bus] += 1
        words += ["-device", _json(device)]
    for index, path in enumerate(config.cdroms):
        words += _cdrom(index, path, len(config.disks) + index + 1, slots)
    return words


def _controllers(disks: Sequence[DiskConfig], slots: Slots) -> list[str]:
    words = []
    if any(disk.bus is DiskBus.SCSI for disk in disks):
        words += ["-device", _json({"driver": "virtio-scsi-pci", "id": "scsi", **slots.fixed("scsi")})]
    on_usb = sum(disk.bus is DiskBus.USB for disk in disks)
    if on_usb > _PORTS_PER_USB * _USB_CONTROLLERS:
        raise Refused("a VM has at most 30 disks on USB", code="TooManyDevices", field="spec.disks")
    for index in range(-(-on_usb // _PORTS_PER_USB)):
        ports = {"p2": _PORTS_PER_USB, "p3": _PORTS_PER_USB}
        words += ["-device", _json({"driver": "qemu-xhci", "id": f"usb{index}", **ports, **slots.fixed(f"usb{index}")})]
    return words


def _on_bus(bus: DiskBus, index: int, slots: Slots) -> dict[str, object]:
    match bus:
        case DiskBus.VIRTIO:
            return {"driver": "virtio-blk-pci", **slots.disk()}
        case DiskBus.NVME:
            return {"driver": "nvme", **slots.disk()}
        case DiskBus.SCSI:
            return {"driver": "scsi-hd", "bus": "scsi.0", "channel": 0, "scsi-id": index, "lun": 0}
        case DiskBus.USB:
            controller, port = divmod(index, _PORTS_PER_USB)
            return {"driver": "usb-storage", "bus": f"usb{controller}.0", "port": str(port + 1)}


def _nodes(name: str, layers: Sequence[Layer], *, read_only: bool) -> list[str]:
    """Node ``name`` with those it stands on, the base first. What is flushed is on the disk; nothing is synced else."""
    words = []
    for depth, layer in reversed(list(enumerate(layers))):
        node = _layer_name(name, depth)
        fixed = read_only or depth > 0
        # Locks are taken even where QEMU thinks the file system might not have them: no disk has two writers.
        driver = "host_device" if layer.block_device else "file"
        file: dict[str, object] = {"driver": driver, "filename": str(layer.path), "locking": "on", "discard": "unmap"}
        entry: dict[str, object] = {
            "driver": layer.format,
            "node-name": node,
            "read-only": fixed,
            "discard": "unmap",
            "file": {**file, "node-name": f"{node}-file", "read-only": fixed},
        }
        if layer.format == "qcow2":
            # Named or null: QEMU follows no name in a header by itself.
            entry["backing"] = _layer_name(name, depth + 1) if depth + 1 < len(layers) else None
        words += ["-blockdev", _json(entry)]
    return words


def _layer_name(name: str, depth: int) -> str:
    return name if depth == 0 else f"{name}-base{depth}"


def _cdrom(index: int, path: Path, boot_index: int, slots: Slots) -> list[str]:
    """A read-only virtio disk: every kernel that starts here has its driver, not every one has SCSI's CD-ROM."""
    node = f"cdrom{index}"
    device = {
        "driver": "virtio-blk-pci",
        "id": f"{node}-dev",
        "drive": node,
        "bootindex": boot_index,
        **slots.cdrom(index),
    }
    return [*_nodes(node, [Layer(path, "raw")], read_only=True), "-device", _json(device)]


def _json(values: Mapping[str, object]) -> str:
    return json.dumps(values, separators=(",", ":"))
