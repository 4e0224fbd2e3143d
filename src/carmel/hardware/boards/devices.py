"""The devices of a synthetic machine: those that are on the board, and one in each kind of slot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from carmel.hardware.boards.facts import BoardFacts, Device, DeviceKind
from carmel.hardware.boards.shape import Shape
from carmel.hardware.model import Accelerator, Nic, NvmeController, NvmeNamespace, PciDevice

_CLASSES: Final = {DeviceKind.NVME: 0x010802, DeviceKind.NIC: 0x020000, DeviceKind.GPU: 0x030000}
"""PCI Code and ID Assignment Specification 1.11, 1.2 to 1.4."""
_DRIVE_BYTES: Final = 960_197_124_096
_BLOCK_BYTES: Final = 4096
_DRIVERS: Final = {DeviceKind.NVME: "nvme"}


@dataclass(frozen=True, slots=True)
class Placed:
    """A device at its node. ``index`` counts those of its kind; ``address`` is ``None`` for what is no PCI device."""

    device: Device
    index: int
    node: int
    address: str | None

    @property
    def driver(self) -> str | None:
        return self.device.driver or _DRIVERS.get(self.device.kind)


def placed_devices(shape: Shape) -> tuple[Placed, ...]:
    """One for each entry of the board, however many slots of it there are: a machine has few of them filled."""
    found: list[Placed] = []
    for segment, entry in enumerate(_known(shape.board)):
        index = sum(one.device.kind is entry.kind for one in found)
        address = None if entry.tree_node else f"{segment:04x}:01:00.0"
        found.append(Placed(entry, index, min(entry.socket, shape.sockets - 1) * shape.nodes, address))
    return tuple(found)


def pci(devices: Sequence[Placed]) -> tuple[PciDevice, ...]:
    return tuple(
        PciDevice(
            address=one.address,
            vendor=0,
            device=0,
            class_code=_CLASSES[one.device.kind],
            driver=one.driver,
            node=one.node,
        )
        for one in devices
        if one.address is not None
    )


def nvme(devices: Sequence[Placed]) -> tuple[NvmeController, ...]:
    return tuple(
        NvmeController(
            name=f"nvme{one.index}",
            model="an assumed drive",
            serial=f"ASSUMED{one.index}",
            firmware="",
            pci_address=one.address,
            node=one.node,
            namespaces=(NvmeNamespace(f"nvme{one.index}n1", _DRIVE_BYTES, _BLOCK_BYTES),),
        )
        for one in devices
        if one.device.kind is DeviceKind.NVME
    )


def nics(devices: Sequence[Placed]) -> tuple[Nic, ...]:
    return tuple(
        Nic(
            name=f"eth{one.index}",
            mac=f"02:00:00:00:00:{one.index:02x}",
            driver=one.driver,
            speed_mbps=one.device.speed_mbps,
            link=True,
            node=one.node,
            pci_address=one.address,
        )
        for one in devices
        if one.device.kind is DeviceKind.NIC
    )


def accelerators(devices: Sequence[Placed]) -> tuple[Accelerator, ...]:
    return tuple(
        Accelerator(
            kind="GPU",
            name=one.device.name,
            source=one.device.tree_node or one.address or "",
            driver=one.driver,
            node=one.node,
        )
        for one in devices
        if one.device.kind is DeviceKind.GPU
    )


def device_remarks(devices: Sequence[Placed]) -> Iterator[str]:
    """What is made up about them."""
    if any(one.device.kind is DeviceKind.NVME for one in devices):
        names = ", ".join(f"nvme{one.index}" for one in devices if one.device.kind is DeviceKind.NVME)
        yield f"Assumed: one NVMe drive of 960 GB in each place that the board has for some ({names})."
    if any(one.address for one in devices):
        yield "PCI addresses are made up, and PCI ids are 0."
    if any(one.device.kind is DeviceKind.NIC for one in devices):
        yield "Names and MAC addresses of NICs are made up."


def _known(board: BoardFacts) -> Iterator[Device]:
    return (entry.value for entry in board.devices if entry.value is not None)
