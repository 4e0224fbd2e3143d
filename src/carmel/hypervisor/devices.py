"""What NICs and disks are to QEMU, at a VM's start and when they are plugged while it runs. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from carmel.errors import Refused
from carmel.hypervisor.abilities import QemuAbilities
from carmel.hypervisor.config import AnyDisk, DiskConfig, FunctionDiskConfig, MachineConfig, NbdDiskConfig, NicConfig
from carmel.hypervisor.layers import Layer
from carmel.resources.virtualmachine import DiskBus

_HOT_PLUG_CHASSIS, _NIC_CHASSIS, _DISK_CHASSIS = 1, 16, 32
"""Where the numbers of ports begin: each is a slot of its own to the guest."""

_BEHIND_IOMMU: Mapping[str, object] = {"iommu_platform": True, "disable-legacy": "on"}
"""A virtio device whose memory the guest's IOMMU is asked for (virtio specification, VIRTIO_F_ACCESS_PLATFORM)."""


class DeviceKind(StrEnum):
    NIC = "nic"
    DISK = "disk"


@dataclass(frozen=True, slots=True)
class NbdServer:
    """``stall_seconds``: how long what is asked for waits while it is away."""

    host: str
    port: int
    stall_seconds: int

    @classmethod
    def of(cls, disk: AnyDisk) -> NbdServer | None:
        return cls(disk.host, disk.port, disk.stall_seconds) if isinstance(disk, NbdDiskConfig) else None


@dataclass(frozen=True, slots=True)
class Device:
    """A NIC or a disk as QEMU has it. ``name`` is the VM's word for it, ``id`` QEMU's.

    ``port``: what it is plugged into; ``None``: it is on a bus that takes and gives nothing while the guest runs.
    ``netdev``, ``nodes`` (what the device has first, what that stands on after) and ``objects`` are what goes with it.
    ``function``: the host's PCI function that it is. ``server``: who has a disk's blocks.
    ``plugged``: false while it is being plugged.
    """

    kind: DeviceKind
    name: str
    id: str
    port: str | None
    netdev: str | None = None
    nodes: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    function: str | None = None
    server: NbdServer | None = None
    plugged: bool = True


def nic_port(index: int) -> str:
    return f"nicport{index}"


def disk_port(index: int) -> str:
    return f"diskport{index}"


def hot_plug_port(index: int) -> str:
    return f"port{index}"


def port_options(name: str, place: Mapping[str, object], *, bare: bool = False) -> dict[str, object]:
    """A port that one device can be plugged into. ``bare``: firmware keeps none of the 64 KiB of I/O ports for it: they
    would not do for sixteen, 4 KiB each, and no device behind it has any."""
    return {
        "driver": "pcie-root-port",
        "id": name,
        "chassis": _chassis(name),
        **({"io-reserve": 0} if bare else {}),
        **place,
    }


def nic_options(nic: NicConfig, device: Device, place: Mapping[str, object], *, iommu: bool) -> dict[str, object]:
    """Of ``-device``. ``iommu``: the guest has one, and the NIC is behind it."""
    if nic.function is not None:
        return function_options(nic.function, device.id, place)
    return {
        "driver": "virtio-net-pci",
        "id": device.id,
        "netdev": device.netdev,
        "mac": nic.mac,
        # No boot ROM: it is x86 code, or slow; UEFI has its own driver.
        "romfile": "",
        **_queues(nic),
        **({"host_mtu": nic.mtu} if nic.mtu is not None else {}),
        **(_BEHIND_IOMMU if iommu else {}),
        **place,
    }


def disk_options(
    disk: DiskConfig | NbdDiskConfig, device: Device, place: Mapping[str, object], *, iommu: bool
) -> dict[str, object]:
    """Of ``-device``, for a disk that is a PCI device of its own: bus virtio or nvme."""
    driver: dict[str, object] = {"driver": "nvme"}
    if disk.bus is DiskBus.VIRTIO:
        driver = {"driver": "virtio-blk-pci", **(_BEHIND_IOMMU if iommu else {})}
    return {**driver, "id": device.id, "drive": device.nodes[0], "serial": disk.serial, **place}


def function_options(address: str, name: str, place: Mapping[str, object]) -> dict[str, object]:
    """A function of the host (QEMU's docs/system/devices/vfio.rst). Its ROM is for another kind of machine, or none."""
    return {"driver": "vfio-pci", "id": name, "host": address, "rombar": 0, **place}


def nodes_of(disk: AnyDisk, device: Device, layers: Sequence[Layer]) -> list[dict[str, object]]:
    """Block nodes (``-blockdev``), what stands on others behind them. ``layers`` are those of a disk in a file."""
    if isinstance(disk, NbdDiskConfig):
        return [_nbd_node(disk, device)]
    if isinstance(disk, FunctionDiskConfig):
        return []
    return file_nodes(device.nodes, layers, read_only=disk.read_only)


def node_names(disk: AnyDisk, name: str, layers: Sequence[Layer]) -> tuple[str, ...]:
    """``Device.nodes``, of which ``name`` is the first."""
    match disk:
        case FunctionDiskConfig():
            return ()
        case NbdDiskConfig():
            return (name,)
        case DiskConfig():
            return layer_names(name, layers)


def layer_names(name: str, layers: Sequence[Layer]) -> tuple[str, ...]:
    return tuple(name if depth == 0 else f"{name}-base{depth}" for depth in range(len(layers)))


def file_nodes(names: Sequence[str], layers: Sequence[Layer], *, read_only: bool) -> list[dict[str, object]]:
    """Node ``names[0]`` with those it stands on, the base first. What is flushed is on the disk; nothing is synced
    else."""
    nodes = []
    for depth, layer in reversed(list(enumerate(layers))):
        fixed = read_only or depth > 0
        # Locks are taken even where QEMU thinks the file system might not have them: no disk has two writers.
        driver = "host_device" if layer.block_device else "file"
        file: dict[str, object] = {"driver": driver, "filename": str(layer.path), "locking": "on", "discard": "unmap"}
        # What a guest flushes is on the drive either way (qapi/block-core.json, BlockdevCacheOptions).
        cache: dict[str, object] = {"cache": {"direct": True}} if layer.direct else {}
        entry: dict[str, object] = {
            "driver": layer.format,
            "node-name": names[depth],
            "read-only": fixed,
            "discard": "unmap",
            **cache,
            "file": {**file, **cache, "node-name": f"{names[depth]}-file", "read-only": fixed},
        }
        if layer.format == "qcow2":
            # Named or null: QEMU follows no name in a header by itself.
            entry["backing"] = names[depth + 1] if depth + 1 < len(layers) else None
        nodes.append(entry)
    return nodes


def key_object(disk: NbdDiskConfig, device: Device, folder: str) -> dict[str, object]:
    """The object with the disk's key, which lies in ``folder`` (qapi/crypto.json, TlsCredsPskProperties)."""
    return {
        "qom-type": "tls-creds-psk",
        "id": device.objects[0],
        "endpoint": "client",
        "dir": folder,
        "username": disk.psk.username,
    }


def check_functions(config: MachineConfig, qemu: QemuAbilities) -> None:
    """Raises ``Refused`` if functions of the host cannot be passed to this VM."""
    if config.functions:
        require_functions(qemu_has_vfio="vfio-pci" in qemu.devices, iommu=config.iommu)


def require_functions(*, qemu_has_vfio: bool, iommu: bool) -> None:
    """Raises ``Refused`` (``NotSupported``)."""
    if not qemu_has_vfio:
        raise Refused("this QEMU cannot pass functions of the host to a VM: it has no vfio-pci", code="NotSupported")
    if iommu:
        raise Refused(
            "a guest with an IOMMU of its own cannot be given functions of the host: QEMU's SMMUv3 does not tell the "
            "host's where the guest's addresses lead",
            code="NotSupported",
            field="spec.iommu",
            hint="leave spec.iommu out, or use NICs and disks that the host itself makes",
        )


def _queues(nic: NicConfig) -> dict[str, object]:
    """An interrupt for each queue, receiving and sending, and two more: configuration and control queue (virtio
    specification, "Network Device", virtqueues)."""
    return {"mq": True, "vectors": 2 * nic.queues + 2} if nic.queues > 1 else {}


def _nbd_node(disk: NbdDiskConfig, device: Device) -> dict[str, object]:
    """QEMU's client of NBD (qapi/block-core.json, BlockdevOptionsNbd). It connects again by itself."""
    return {
        "driver": "nbd",
        "node-name": device.nodes[0],
        "read-only": disk.read_only,
        "discard": "unmap",
        "server": {"type": "inet", "host": disk.host, "port": str(disk.port)},
        "export": disk.export,
        "tls-creds": device.objects[0],
        "reconnect-delay": disk.stall_seconds,
    }


def _chassis(port: str) -> int:
    first = {"nicport": _NIC_CHASSIS, "diskport": _DISK_CHASSIS, "port": _HOT_PLUG_CHASSIS}
    kind = port.rstrip("0123456789")
    return first[kind] + int(port[len(kind) :])
