"""Pure: which PCI function of the host each function is that a NIC tells of, and whether it can be passed on.

A NIC is believed what its functions are called and which MAC addresses they have, and nothing that could make the host
give away something else: the address that it tells has to be one of a NIC (or NVMe controller) with that MAC (or serial
number), and what the host uses itself is never passed on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from carmel.hardware.model import PciDevice
from carmel.resources.smartnic import FunctionKind, FunctionState, FunctionStatus
from carmel.smartnic.hostside import HostSide

VFIO = "vfio-pci"
_CLASSES = {FunctionKind.NET: 0x02, FunctionKind.NVME: 0x01}
"""The base class of the PCI class code (PCI Code and ID Assignment Specification): network, mass storage."""
_BRIDGE = 0x06

NO_IOMMU = (
    "the host has no IOMMU that works: switch it on in the firmware (SMMU on Arm, VT-d or AMD-Vi on x86), and with an "
    "Intel CPU start the kernel with intel_iommu=on"
)


@dataclass(frozen=True, slots=True)
class _Place:
    """``name``: the kernel's, of the interface or drive, while a driver of the kernel's has it."""

    device: PciDevice
    name: str | None = None


def find_functions(
    told: Sequence[FunctionStatus], host: HostSide, before: Iterable[FunctionStatus]
) -> tuple[FunctionStatus, ...]:
    """``told`` by the NIC, ``before`` from the SmartNIC's status on the host. Owners are left out; what is not Missing
    or Refused is Free. What vfio-pci has is not forgotten when the NIC does not tell of it for a while."""
    known = {one.id: one for one in before}
    found = [_find(one, host, known.get(one.id)) for one in told]
    claims: dict[str, list[str]] = {}
    for function, place in zip(told, found, strict=True):
        if isinstance(place, _Place):
            claims.setdefault(place.device.address, []).append(function.id)
    named = {one.id for one in told}
    return (
        *(_status(one, place, host, claims) for one, place in zip(told, found, strict=True)),
        *(
            one.model_copy(update={"state": FunctionState.MISSING, "message": "the NIC does not tell of it any more"})
            for one in known.values()
            if one.id not in named and _remembered(one, host, one) is not None
        ),
    )


def find_again(known: FunctionStatus, host: HostSide) -> FunctionStatus:
    """A function of a SmartNIC's status as it is now. The status may be of before the host was started anew, when
    something else had that address, or of before the host took the function into use."""
    return find_functions([known], host, [known])[0]


def _find(told: FunctionStatus, host: HostSide, before: FunctionStatus | None) -> _Place | str:
    """Where it is, or why that is not known."""
    named = _by_mac(told, host) if told.kind is FunctionKind.NET else _by_serial(told, host)
    if len(named) > 1:
        return f"several interfaces of the host have its MAC address: {', '.join(str(one.name) for one in named)}"
    if told.pci_address is not None:
        device = host.pci.get(told.pci_address.lower())
        if device is None:
            return f"the host has no PCI function {told.pci_address}"
        if device.class_code >> 16 != _CLASSES[told.kind]:
            return f"{device.address}, which the NIC says it is, is something else"
        if device.driver == VFIO and (before is None or before.pci_address != device.address):
            return f"vfio-pci has {device.address} already, and not for Carmel"
        seen = _name_at(device.address, host)
        if seen is not None and not any(one.device.address == device.address for one in named):
            return f"{device.address} ({seen}), which the NIC says it is, has another MAC address or serial number"
        return _Place(device, seen)
    if named:
        return named[0]
    return _remembered(told, host, before) or (f"the host sees no function with {_identity(told)}")


def _identity(told: FunctionStatus) -> str:
    return f"MAC address {told.mac}" if told.kind is FunctionKind.NET else f"serial number {told.serial}"


def _by_mac(told: FunctionStatus, host: HostSide) -> list[_Place]:
    if told.mac is None:
        return []
    mac = told.mac.lower()
    same = ((host.pci.get(nic.pci_address or ""), nic.name) for nic in host.nics if nic.mac.lower() == mac)
    return [_Place(device, name) for device, name in same if device is not None]


def _by_serial(told: FunctionStatus, host: HostSide) -> list[_Place]:
    if told.serial is None:
        return []
    same = ((host.pci.get(one.pci_address or ""), one.name) for one in host.drives if one.serial == told.serial)
    return [_Place(device, name) for device, name in same if device is not None]


def _name_at(address: str, host: HostSide) -> str | None:
    names = [nic.name for nic in host.nics if nic.pci_address == address]
    return next(iter(names + [drive.name for drive in host.drives if drive.pci_address == address]), None)


def _remembered(told: FunctionStatus, host: HostSide, before: FunctionStatus | None) -> _Place | None:
    """One that vfio-pci has, or that is on its way there or back (its driver has made no interface yet), shows its MAC
    address to nobody: it is where it was seen last. Real NICs give a function the MAC address of the port that it is
    plugged into, so that may be another now."""
    if before is None or before.pci_address is None:
        return None
    device = host.pci.get(before.pci_address)
    if device is None or device.class_code >> 16 != _CLASSES[told.kind]:
        return None
    if device.driver != VFIO and _name_at(device.address, host) is not None:
        return None
    return _Place(device)


def _status(
    told: FunctionStatus, place: _Place | str, host: HostSide, claims: Mapping[str, Sequence[str]]
) -> FunctionStatus:
    plain = FunctionStatus(id=told.id, kind=told.kind, mac=told.mac, serial=told.serial, representor=told.representor)
    if isinstance(place, str):
        return plain.model_copy(update={"state": FunctionState.MISSING, "message": place})
    device = place.device
    refused = _refusal(told, place, host, claims[device.address])
    return plain.model_copy(
        update={
            "pci_address": device.address,
            "iommu_group": device.iommu_group,
            "numa_node": device.node,
            "driver": device.driver,
            "state": FunctionState.FREE if refused is None else FunctionState.REFUSED,
            "message": refused,
        }
    )


def _refusal(told: FunctionStatus, place: _Place, host: HostSide, claims: Sequence[str]) -> str | None:
    device = place.device
    if len(claims) > 1:
        others = ", ".join(one for one in claims if one != told.id)
        return f"the NIC says of {others} as well that it is {device.address}"
    if told.kind is FunctionKind.NET and place.name is not None and place.name in host.used:
        return f"the host itself needs it: {place.name} is {host.used[place.name]}"
    return group_refusal(device, host)


def group_refusal(device: PciDevice, host: HostSide) -> str | None:
    """Why the function cannot be passed on for its IOMMU group's sake; ``None``: it can.

    A group goes to one VM as a whole; bridges stay with the host (Documentation/driver-api/vfio.rst).
    """
    if device.iommu_group is None:
        return f"{device.address} is in no IOMMU group" if host.has_iommu else NO_IOMMU
    others = [
        one.address
        for one in host.pci.values()
        if one.iommu_group == device.iommu_group and one.address != device.address and one.class_code >> 16 != _BRIDGE
    ]
    if not others:
        return None
    return (
        f"IOMMU group {device.iommu_group} has {', '.join(others)} besides {device.address}: they can only be passed "
        "on together"
    )
