"""Disks and CD-ROMs on the command line: a block node for each file, a device for each disk."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from carmel.errors import Refused
from carmel.hypervisor.config import AnyDisk, FunctionDiskConfig, MachineConfig, NbdDiskConfig
from carmel.hypervisor.devices import (
    Device,
    DeviceKind,
    NbdServer,
    disk_port,
    file_nodes,
    function_options,
    key_object,
    node_names,
    nodes_of,
    port_options,
)
from carmel.hypervisor.layers import Layer
from carmel.hypervisor.slots import Slots
from carmel.paths import MachinePaths
from carmel.resources.virtualmachine import DiskBus

_PORTS_PER_USB = 15
"""qemu-xhci has at most 15 ports of each speed (hw/usb/hcd-xhci.h, XHCI_MAXPORTS_3)."""
_USB_CONTROLLERS = 2


def disk_arguments(
    config: MachineConfig, layers: Mapping[str, Sequence[Layer]], paths: MachinePaths, slots: Slots
) -> tuple[list[str], list[Device]]:
    """Every disk and CD-ROM, and the controllers they need. Booting tries disks first, in their order."""
    words = _controllers(config.disks, slots)
    on_bus = dict.fromkeys(DiskBus, 0)
    devices = []
    for index, disk in enumerate(config.disks):
        # Behind a port of its own a guest with an IOMMU may hand it on, as it may its NICs, and it can be unplugged.
        lone = config.iommu and not isinstance(disk, FunctionDiskConfig) and disk.bus is DiskBus.NVME
        device = _device(index, disk, layers.get(disk.name, ()), alone=lone)
        devices.append(device)
        boot = {"bootindex": index + 1}
        if device.port is not None:
            words += ["-device", _json(port_options(device.port, slots.drive(), bare=lone))]
        if isinstance(disk, FunctionDiskConfig):
            options = function_options(disk.function, device.id, {**boot, "bus": device.port})
        else:
            words += _backend(disk, device, layers.get(disk.name, ()), paths)
            place = _on_bus(disk.bus, on_bus[disk.bus], slots, device.port)
            options = {"id": device.id, "drive": device.nodes[0], "serial": disk.serial, **boot, **place}
            on_bus[disk.bus] += 1
        words += ["-device", _json(options)]
    for index, path in enumerate(config.cdroms):
        words += _cdrom(index, path, len(config.disks) + index + 1, slots)
    return words, devices


def _device(index: int, disk: AnyDisk, layers: Sequence[Layer], *, alone: bool) -> Device:
    node = f"disk{index}"
    function = disk.function if isinstance(disk, FunctionDiskConfig) else None
    return Device(
        kind=DeviceKind.DISK,
        name=disk.name,
        id=f"{node}-dev",
        port=disk_port(index) if alone or function is not None else None,
        nodes=node_names(disk, node, layers),
        objects=(f"{node}-tls",) if isinstance(disk, NbdDiskConfig) else (),
        function=function,
        server=NbdServer.of(disk),
    )


def _backend(disk: AnyDisk, device: Device, layers: Sequence[Layer], paths: MachinePaths) -> list[str]:
    words = []
    if isinstance(disk, NbdDiskConfig):
        words += ["-object", _json(key_object(disk, device, str(paths.key_folder(device.objects[0]))))]
    for node in nodes_of(disk, device, layers):
        words += ["-blockdev", _json(node)]
    return words


def _controllers(disks: Sequence[AnyDisk], slots: Slots) -> list[str]:
    words = []
    buses = [disk.bus for disk in disks if not isinstance(disk, FunctionDiskConfig)]
    if DiskBus.SCSI in buses:
        words += ["-device", _json({"driver": "virtio-scsi-pci", "id": "scsi", **slots.fixed("scsi")})]
    on_usb = buses.count(DiskBus.USB)
    if on_usb > _PORTS_PER_USB * _USB_CONTROLLERS:
        raise Refused("a VM has at most 30 disks on USB", code="TooManyDevices", field="spec.disks")
    for index in range(-(-on_usb // _PORTS_PER_USB)):
        ports = {"p2": _PORTS_PER_USB, "p3": _PORTS_PER_USB}
        words += ["-device", _json({"driver": "qemu-xhci", "id": f"usb{index}", **ports, **slots.fixed(f"usb{index}")})]
    return words


def _on_bus(bus: DiskBus, index: int, slots: Slots, behind: str | None) -> dict[str, object]:
    match bus:
        case DiskBus.VIRTIO:
            return {"driver": "virtio-blk-pci", **slots.disk()}
        case DiskBus.NVME:
            return {"driver": "nvme", **({"bus": behind} if behind is not None else slots.drive())}
        case DiskBus.SCSI:
            return {"driver": "scsi-hd", "bus": "scsi.0", "channel": 0, "scsi-id": index, "lun": 0}
        case DiskBus.USB:
            controller, port = divmod(index, _PORTS_PER_USB)
            return {"driver": "usb-storage", "bus": f"usb{controller}.0", "port": str(port + 1)}


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
    (entry,) = file_nodes([node], [Layer(path, "raw")], read_only=True)
    return ["-blockdev", _json(entry), "-device", _json(device)]


def _json(values: Mapping[str, object]) -> str:
    return json.dumps(values, separators=(",", ":"))
