"""NUMA nodes, their memory, distances and huge pages (Linux, Documentation/ABI/stable/sysfs-devices-node)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from carmel.cpulist import format_cpu_list
from carmel.hardware.hugepages import read_huge_pages
from carmel.hardware.model import NumaNode
from carmel.hardware.sysroot import Sysroot, parse_number

NODES = "sys/devices/system/node"
LOCAL_DISTANCE, REMOTE_DISTANCE = 10, 20
"""ACPI 6.5, 5.2.17 (SLIT): 10 is a node's distance to itself. 20 is what Linux takes between nodes where the firmware
does not say (include/linux/topology.h)."""
UNREACHABLE = 255
_FOLDER = re.compile(r"node(\d{1,4})", re.ASCII)
_MOST_NODES = 1024
"""Linux cannot be built for more (``CONFIG_NODES_SHIFT``, at most 10)."""
_MOST_BYTES = 1 << 57
"""Beyond any physical address of arm64 (52 bits; 56 with LPA2's successors) or x86-64 (52 bits)."""


def read_nodes(root: Sysroot, cpus: tuple[int, ...], packages: Mapping[int, int | None]) -> tuple[NumaNode, ...]:
    """Every online CPU is in exactly one of them. ``packages``: each CPU's socket, to house the homeless by."""
    ids = _online(root)
    if not ids:
        return (_only_node(root, cpus),)
    homes = _homes(root, ids, cpus, packages)
    nodes = []
    for node in ids:
        total, free = _memory(root, f"{NODES}/node{node}/meminfo", f"NUMA node {node}")
        nodes.append(
            NumaNode(
                id=node,
                cpus=tuple(cpu for cpu in cpus if homes[cpu] == node),
                memory_bytes=total or 0,
                distances=_distances(root, node, ids),
                free_memory_bytes=free,
                huge_pages=read_huge_pages(root, f"{NODES}/node{node}/hugepages"),
            )
        )
    return _with_memory(root, tuple(nodes))


def _online(root: Sysroot) -> tuple[int, ...]:
    matches = (_FOLDER.fullmatch(name) for name in root.names(NODES))
    folders = {int(match[1]) for match in matches if match}
    listed = set(root.numbers(f"{NODES}/online") or ())
    if listed - folders:
        root.remark(f"NUMA nodes {format_cpu_list(listed - folders)} are said to be online but were not found.")
    if listed and folders - listed:
        root.remark(f"NUMA nodes {format_cpu_list(folders - listed)} are offline: what is on them is not used.")
    found = sorted(listed & folders or folders)
    if len(found) > _MOST_NODES:
        root.remark(f"{len(found)} NUMA nodes are more than there can be: the first {_MOST_NODES} were taken.")
    return tuple(found[:_MOST_NODES])


def _only_node(root: Sysroot, cpus: tuple[int, ...]) -> NumaNode:
    """A kernel without NUMA: all is node 0."""
    total, free = _memory(root, "proc/meminfo", "The machine")
    return NumaNode(
        id=0,
        cpus=cpus,
        memory_bytes=total or 0,
        distances={0: LOCAL_DISTANCE},
        free_memory_bytes=free,
        huge_pages=read_huge_pages(root, "sys/kernel/mm/hugepages"),
    )


def _homes(
    root: Sysroot, ids: tuple[int, ...], cpus: tuple[int, ...], packages: Mapping[int, int | None]
) -> dict[int, int]:
    """The node of each CPU."""
    homes: dict[int, int] = {}
    twice: list[int] = []
    for node in ids:
        listed = root.numbers(f"{NODES}/node{node}/cpulist") or ()
        twice += [cpu for cpu in listed if homes.setdefault(cpu, node) != node]
    if twice:
        root.remark(f"CPUs {format_cpu_list(twice)} are said to be in several NUMA nodes: taken to be in the lowest.")
    homeless = [cpu for cpu in cpus if cpu not in homes]
    if homeless:
        neighbours = Counter((packages.get(cpu), homes[cpu]) for cpu in cpus if cpu in homes)
        for cpu in homeless:
            near = [(count, -node) for (socket, node), count in neighbours.items() if socket == packages.get(cpu)]
            homes[cpu] = -max(near)[1] if near else ids[0]
        taken = format_cpu_list(homes[cpu] for cpu in homeless)
        root.remark(f"CPUs {format_cpu_list(homeless)} are in no NUMA node: taken to be in {taken}, by their socket.")
    return homes


def _distances(root: Sysroot, node: int, ids: tuple[int, ...]) -> dict[int, int]:
    """One number for each online node, in their order."""
    path = f"{NODES}/node{node}/distance"
    text = root.text(path, 8192)
    words = [parse_number(word) for word in (text or "").split()]
    whole = {other: LOCAL_DISTANCE if other == node else REMOTE_DISTANCE for other in ids}
    if len(words) != len(ids):
        if len(ids) > 1:
            found = f"holds {len(words)} distances for {len(ids)} nodes" if words else "says nothing"
            root.remark(f"/{path} {found}: {LOCAL_DISTANCE} and {REMOTE_DISTANCE} were taken.")
        return whole
    for other, distance in zip(ids, words, strict=True):
        right = distance is not None and LOCAL_DISTANCE <= distance <= UNREACHABLE
        if distance is None or not right or (other == node and distance != LOCAL_DISTANCE):
            said = "no number" if distance is None else distance
            root.remark(f"The distance from NUMA node {node} to {other} is said to be {said}: taken as {whole[other]}.")
        else:
            whole[other] = distance
    return whole


def _memory(root: Sysroot, path: str, whose: str) -> tuple[int | None, int | None]:
    """Total and free bytes."""
    text = root.text(path, 16384)
    if text is None:
        root.remark(f"{whose} does not say how much memory it has (/{path}): taken as none.")
        return None, None
    total, free = (_kibibytes(text, name) for name in ("MemTotal", "MemFree"))
    if total is None:
        root.remark(f"{whose} says nothing of its memory that can be (/{path}): taken as none.")
    return total, None if total is None or free is None else min(free, total)


def _kibibytes(text: str, name: str) -> int | None:
    match = re.search(rf"\b{name}:\s*(\d{{1,18}}) kB", text)
    size = int(match[1]) << 10 if match else None
    return size if size is not None and size < _MOST_BYTES else None


def _with_memory(root: Sysroot, nodes: tuple[NumaNode, ...]) -> tuple[NumaNode, ...]:
    if sum(node.memory_bytes for node in nodes):
        return nodes
    root.remark("No NUMA node has memory by what they say: no VM can be placed.")
    return nodes
