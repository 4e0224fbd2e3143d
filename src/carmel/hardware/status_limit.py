"""A machine's status kept so small that a Host stays readable and storable."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from carmel.resources.base import Model
from carmel.resources.host_hardware import HardwareStatus, PciStatus

LARGEST_BYTES = 150 * 1024
"""As JSON. No object may exceed 256 KiB, and a Host has more in it than its machine."""
_BRIDGE = 0x06
_FEW_FUNCTIONS = 256
_ROOM_FOR_REMARKS = 512
_MOST_DEVICES = 128
_MOST_NODES = 64


def within_limit(status: HardwareStatus) -> HardwareStatus:
    """The same, with one part after another cut until it fits, and a remark for each cut. Sockets, kinds and nodes are
    cut only where no such machine can be built."""
    remarks = list(status.remarks or ())
    for cut in _CUTS:
        if _size(status) <= LARGEST_BYTES:
            break
        remarks += cut(status)
        status.remarks = remarks or None
    return status


def _size(part: Model) -> int:
    return len(part.model_dump_json(by_alias=True, exclude_none=True))


# What goes first when a machine is too large to be told in full, from the least to the most missed.


def _without_virtual_functions(status: HardwareStatus) -> list[str]:
    kept = [one for one in status.pci or () if one.physical_function is None]
    return _keep_pci(status, kept, "virtual functions are left out: each physical one says how many it has")


def _without_bridges(status: HardwareStatus) -> list[str]:
    kept = [one for one in status.pci or () if int(one.class_code, 16) >> 16 != _BRIDGE]
    return _keep_pci(status, kept, "PCI bridges are left out")


def _without_many_functions(status: HardwareStatus) -> list[str]:
    """The last ones, as few as will do, but never all."""
    functions = list(status.pci or ())
    over = _size(status) - LARGEST_BYTES + _ROOM_FOR_REMARKS
    while over > 0 and len(functions) > _FEW_FUNCTIONS:
        over -= _size(functions.pop()) + 1
    return _keep_pci(status, functions, f"more PCI functions than the first {len(functions)} are left out")


def _keep_pci(status: HardwareStatus, kept: list[PciStatus], sentence: str) -> list[str]:
    left_out = len(status.pci or ()) - len(kept)
    status.pci = kept or None
    return [f"{left_out} {sentence}."] if left_out else []


def _without_own_caches(status: HardwareStatus) -> list[str]:
    """Caches of single CPUs say least."""
    kept = [one for one in status.caches or () if any("-" in cpus or "," in cpus for cpus in one.cpus)]
    left_out = len(status.caches or ()) - len(kept)
    status.caches = kept or None
    return ["Caches that belong to a single CPU each are left out."] if left_out else []


def _without_many_devices(status: HardwareStatus) -> list[str]:
    said = []
    counts: Mapping[str, int] = {
        "nvme": len(status.nvme or ()),
        "nics": len(status.nics or ()),
        "accelerators": len(status.accelerators or ()),
    }
    status.nvme = (status.nvme or [])[:_MOST_DEVICES] or None
    status.nics = (status.nics or [])[:_MOST_DEVICES] or None
    status.accelerators = (status.accelerators or [])[:_MOST_DEVICES] or None
    for drive in status.nvme or ():
        if len(drive.namespaces or ()) > _MOST_DEVICES:
            said.append(f"Of {drive.name}'s {len(drive.namespaces or ())} namespaces {_MOST_DEVICES} are shown.")
            drive.namespaces = (drive.namespaces or [])[:_MOST_DEVICES]
    return said + [
        f"Of {count} {what} {_MOST_DEVICES} are shown." for what, count in counts.items() if count > _MOST_DEVICES
    ]


def _without_distances(status: HardwareStatus) -> list[str]:
    """A thousand nodes have a million distances."""
    if len(status.numa_nodes) <= _MOST_NODES:
        return []
    for node in status.numa_nodes:
        near = sorted(node.distances.items(), key=lambda one: one[1])[:8]
        node.distances, node.huge_pages = dict(near), None
    return ["Of each NUMA node only the distances to the nearest eight are shown, and no huge pages."]


def _without_details(status: HardwareStatus) -> list[str]:
    status.pci = status.caches = status.nvme = status.nics = status.accelerators = status.cores = None
    return ["The machine has too many parts to be shown: caches and devices are left out."]


def _without_nonsense(status: HardwareStatus) -> list[str]:
    status.sockets, status.cpu_kinds = status.sockets[:_MOST_NODES], status.cpu_kinds[:_MOST_NODES]
    status.numa_nodes, status.clusters = status.numa_nodes[:_MOST_NODES], None
    return [f"No machine has so many sockets, kinds of cores or NUMA nodes: the first {_MOST_NODES} of each are shown."]


_CUTS: tuple[Callable[[HardwareStatus], list[str]], ...] = (
    _without_virtual_functions,
    _without_bridges,
    _without_many_functions,
    _without_own_caches,
    _without_many_devices,
    _without_distances,
    _without_details,
    _without_nonsense,
)
