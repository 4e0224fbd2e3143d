"""The devices that a picture of a machine shows: those a person chooses a VM's place by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from carmel.cli.text import safe
from carmel.resources.host_hardware import HardwareStatus, NicStatus, NvmeStatus
from carmel.units import human_bytes


@dataclass(frozen=True, slots=True)
class Device:
    """``node`` ``None``: it is at no node in particular."""

    node: int | None
    name: str
    text: str


def devices_of(hardware: HardwareStatus) -> tuple[Device, ...]:
    """NVMe drives, then NICs (virtual functions are counted at their physical one), then accelerators."""
    return (*map(_drive, hardware.nvme or ()), *_nics(hardware), *_accelerators(hardware))


def _drive(drive: NvmeStatus) -> Device:
    namespaces = drive.namespaces or []
    size = human_bytes(sum(one.size_bytes for one in namespaces)) if namespaces else "no namespace"
    uses = list(dict.fromkeys(one.used_by or "free" for one in namespaces))
    return Device(drive.node, safe(drive.name), safe(", ".join([size, *uses, drive.model.strip()])))


def _nics(hardware: HardwareStatus) -> Iterator[Device]:
    virtual = {one.address for one in hardware.pci or () if one.physical_function is not None}
    for nic in hardware.nics or ():
        if nic.pci_address not in virtual:
            yield Device(nic.node, safe(nic.name), safe(", ".join(_nic_words(nic))))


def _nic_words(nic: NicStatus) -> Iterator[str]:
    if not nic.link:
        yield "no link"
    elif nic.speed_mbps is not None:
        yield f"{nic.speed_mbps / 1000:g} Gbit/s" if nic.speed_mbps >= 1000 else f"{nic.speed_mbps} Mbit/s"
    else:
        yield "link up"
    if nic.sriov is not None and nic.sriov.total:
        yield f"{nic.sriov.configured} of {nic.sriov.total} VFs"
    if nic.driver:
        yield nic.driver


def _accelerators(hardware: HardwareStatus) -> Iterator[Device]:
    for one in hardware.accelerators or ():
        yield Device(one.node, safe(one.kind), safe(f"{one.name} ({one.source})" if one.name else one.source))
