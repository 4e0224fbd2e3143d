"""PCI functions (Linux, Documentation/PCI/sysfs-pci.rst; Documentation/ABI/testing/sysfs-bus-pci)."""

from __future__ import annotations

import re

from carmel.hardware.model import PciDevice, SrIov
from carmel.hardware.sysroot import Sysroot

DEVICES = "sys/bus/pci/devices"
ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", re.ASCII)
"""A domain has more than four digits where it is not the firmware's (Intel's VMD)."""
_MOST_FUNCTIONS = 1 << 16


def read_pci(root: Sysroot, nodes: frozenset[int]) -> tuple[PciDevice, ...]:
    """By address. A function of a node that is none of ``nodes`` is taken to have none."""
    found = []
    astray: dict[int, int] = {}
    for address in filter(ADDRESS.fullmatch, root.names(DEVICES)):
        folder = f"{DEVICES}/{address}"
        vendor, device, class_code = (_id(root, f"{folder}/{name}") for name in ("vendor", "device", "class"))
        if vendor is None or device is None:
            root.remark(f"PCI function {address} does not say what it is: left out.")
            continue
        node = _node(root, folder)
        if node is not None and node not in nodes:
            astray[node] = astray.get(node, 0) + 1
            node = None
        group = root.link(f"{folder}/iommu_group")
        found.append(
            PciDevice(
                address=address,
                vendor=vendor & 0xFFFF,
                device=device & 0xFFFF,
                class_code=(class_code or 0) & 0xFFFFFF,
                driver=root.link(f"{folder}/driver"),
                node=node,
                iommu_group=int(group) if group and group.isascii() and group.isdecimal() else None,
                sriov=_sriov(root, folder),
                physical_function=root.link(f"{folder}/physfn"),
            )
        )
    for node, count in astray.items():
        root.remark(f"{count} PCI functions are said to be at NUMA node {node}, which is not there: taken as nowhere.")
    return tuple(found)


def _id(root: Sysroot, path: str) -> int | None:
    number = root.number(path)
    return number if number is not None and number >= 0 else None


def _node(root: Sysroot, folder: str) -> int | None:
    """-1 is the kernel's word for none."""
    number = root.number(f"{folder}/numa_node")
    return number if number is not None and number >= 0 else None


def _sriov(root: Sysroot, folder: str) -> SrIov | None:
    total = root.number(f"{folder}/sriov_totalvfs")
    if total is None or not 0 < total < 1 << 16:
        return None
    configured = root.number(f"{folder}/sriov_numvfs") or 0
    return SrIov(total=total, configured=min(max(configured, 0), total))


def address_in(path: str | None) -> str | None:
    """The PCI function that a device's path below /sys/devices leads through, the nearest one."""
    parts = (path or "").split("/")
    return next((part for part in reversed(parts) if ADDRESS.fullmatch(part)), None)
