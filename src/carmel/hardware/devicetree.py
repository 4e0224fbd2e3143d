"""The device tree as the kernel shows it: a folder a node, a file a property (Devicetree Specification 0.4)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from carmel.hardware.sysroot import Sysroot, printable

_PLACES = ("sys/firmware/devicetree/base", "proc/device-tree")
_ORDERED = re.compile(r"(socket|cluster|core|thread)(\d{1,4})", re.ASCII)
_DEEPEST = 8
_MOST_NODES = 4096


def base(root: Sysroot) -> str | None:
    """Where the tree's root node is, if the machine was described by one."""
    return next((place for place in _PLACES if root.names(place)), None)


def cells(root: Sysroot, path: str) -> tuple[int, ...]:
    """A property of big-endian 32-bit cells (2.2.4)."""
    data = root.data(path) or b""
    return tuple(int.from_bytes(data[at : at + 4], "big") for at in range(0, len(data) // 4 * 4, 4))


def cell(root: Sysroot, path: str) -> int | None:
    found = cells(root, path)
    return found[0] if len(found) == 1 else None


def strings(root: Sysroot, path: str) -> tuple[str, ...]:
    """A property of strings, each ended by a NUL."""
    data = root.data(path) or b""
    parts = (printable(part.decode("utf-8", "replace")) for part in data.split(b"\0"))
    return tuple(part for part in parts if part)


def cpu_nodes(root: Sysroot, cpus: tuple[int, ...]) -> dict[int, str]:
    """The node of each CPU, by the kernel's own link to it."""
    nodes = {cpu: root.real(f"sys/devices/system/cpu/cpu{cpu}/of_node") for cpu in cpus}
    return {cpu: node for cpu, node in nodes.items() if node is not None}


def cpu_map(root: Sysroot, tree: str, cpus: tuple[int, ...]) -> dict[int, tuple[int, int]]:
    """Socket and cluster of each CPU by /cpus/cpu-map (Linux, Documentation/devicetree/bindings/cpu/cpu-topology.txt).

    Clusters are counted through the machine in the order of the tree; of nested ones the innermost counts. Empty
    unless the map has every one of ``cpus``.
    """
    handles = {cell(root, f"{node}/phandle"): cpu for cpu, node in cpu_nodes(root, cpus).items()}
    found: dict[int, tuple[int, int]] = {}
    clusters: dict[str, int] = {}
    for path, socket in _cores(root, f"{tree}/cpus/cpu-map", 0, 0):
        cluster = path.rpartition("/")[0]
        for place in (path, *(f"{path}/{name}" for name, kind, _ in _children(root, path) if kind == "thread")):
            cpu = handles.get(cell(root, f"{place}/cpu"))
            if cpu is not None:
                found[cpu] = (socket, clusters.setdefault(cluster, len(clusters)))
    return found if set(found) == set(cpus) else {}


def _children(root: Sysroot, path: str) -> list[tuple[str, str, int]]:
    """``socketN``, ``clusterN``, ``coreN`` and ``threadN`` below a node, by their numbers."""
    matches = (_ORDERED.fullmatch(name) for name in root.names(path))
    return sorted(((one[0], one[1], int(one[2])) for one in matches if one), key=lambda child: child[1:])


def _cores(root: Sysroot, path: str, socket: int, depth: int) -> Iterator[tuple[str, int]]:
    if depth > _DEEPEST:
        return
    for name, kind, number in _children(root, path):
        if kind == "core":
            yield f"{path}/{name}", socket
        elif kind != "thread":
            yield from _cores(root, f"{path}/{name}", number if kind == "socket" else socket, depth + 1)


def mapped_nodes(root: Sysroot, tree: str) -> Iterator[str]:
    """Nodes whose registers the CPUs can reach: those below the root and below buses with a ``ranges`` property
    (Devicetree Specification, 2.3.8), where nodes have a unit address (2.2.1). The others (I2C, SPI, pin groups) are
    the most, and hold nothing that computes."""
    pending = [(tree, 0)]
    visited = 0
    while pending and visited < _MOST_NODES:
        path, depth = pending.pop()
        names = root.names(path)
        visited += 1
        if depth:
            yield path
        if depth == 0 or (depth < _DEEPEST and "ranges" in names):
            pending += [(f"{path}/{name}", depth + 1) for name in names if depth == 0 or "@" in name]
