"""Network interfaces with hardware below them (Linux, Documentation/ABI/testing/sysfs-class-net)."""

from __future__ import annotations

from collections.abc import Mapping

from carmel.hardware.model import Nic, PciDevice
from carmel.hardware.pci import address_in
from carmel.hardware.sysroot import Sysroot, parse_number

_CLASS = "sys/class/net"
_FASTEST_MBPS = 10_000_000


def read_nics(root: Sysroot, pci: Mapping[str, PciDevice]) -> tuple[Nic, ...]:
    """By name. Bridges, bonds, VLANs and the like have no device and are not here."""
    found = []
    for name in root.names(_CLASS):
        folder = f"{_CLASS}/{name}"
        device = root.real(f"{folder}/device")
        if device is None:
            continue
        address = address_in(device)
        function = pci.get(address) if address else None
        found.append(
            Nic(
                name=name,
                mac=root.word(f"{folder}/address") or "",
                driver=root.link(f"{folder}/device/driver"),
                speed_mbps=_speed(root, folder),
                link=root.text(f"{folder}/carrier") == "1",
                node=function.node if function else None,
                pci_address=address,
                sriov=function.sriov if function else None,
            )
        )
    return tuple(found)


def _speed(root: Sysroot, folder: str) -> int | None:
    """-1 or an error without a link; virtual hardware often does not say."""
    number = parse_number(root.text(f"{folder}/speed") or "")
    return number if number is not None and 0 < number <= _FASTEST_MBPS else None
