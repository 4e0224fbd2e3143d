"""The guest's memory and NUMA on the command line: where each part of it lies, and what the guest is told.

Memory that is to lie on certain nodes of the host, or in huge pages, gets a backend of its own (``-object
memory-backend-*``; QEMU's qemu-options, "-numa" and "Backends"). Huge pages come from a memfd: unlike a file on
hugetlbfs it needs no mount and no right to write there, and it is gone with QEMU (memfd_create(2), MFD_HUGETLB). They
are filled before the guest starts: the pool is then known to be large enough, where it would otherwise end the VM at
some later access (SIGBUS).
"""

from __future__ import annotations

import json
from collections import Counter

from carmel.cpulist import format_cpu_list
from carmel.errors import Refused
from carmel.hypervisor.config import GuestNodeConfig, MachineConfig
from carmel.units import GIB, format_bytes

_LOCAL, _FARTHEST = 10, 254
_FILLING_THREADS = 16
"""At most; one thread fills a few GiB in a second, and a node's memory bears some of them."""


def check(config: MachineConfig) -> None:
    """Raises ``Refused`` (``InvalidTopology``, ``InvalidNUMA``, ``InvalidPageSize``) for what does not fit together."""
    cpu = config.cpu
    product = cpu.sockets * cpu.clusters * cpu.cores * cpu.threads
    if product != cpu.count:
        raise Refused(
            f"sockets x clusters x cores x threads is {product}, but the VM has {cpu.count} vCPUs",
            code="InvalidTopology",
            field="spec.cpu.topology",
            hint="leave spec.cpu.topology out, and it is chosen after the host's silicon",
        )
    page = config.page_bytes
    for size in (config.memory_bytes, *(node.memory_bytes for node in config.numa)):
        if page is not None and size % page:
            raise Refused(
                f"{format_bytes(size)} is no whole number of pages of {format_bytes(page)}",
                code="InvalidPageSize",
                field="spec.memory.pageSize",
            )
    if config.numa:
        _check_nodes(config)


def memory_arguments(config: MachineConfig, ram_id: str) -> list[str]:
    """``-m`` and all that places it. ``ram_id`` is what this machine type calls its memory in saved state."""
    size = ["-m", f"size={config.memory_bytes // 1024}k"]
    if not config.numa and config.page_bytes is None:
        return size
    if len(config.numa) <= 1:
        host_node = config.numa[0].host_node if config.numa else None
        # Under the machine's own name, so that state which was saved without a backend fits one with it.
        backend = _backend(ram_id, config.memory_bytes, host_node, config)
        return [*size, "-object", backend, "-machine", f"memory-backend={ram_id}"]
    words = size
    for index, node in enumerate(config.numa):
        words += ["-object", _backend(f"ram{index}", node.memory_bytes, node.host_node, config)]
    for index, node in enumerate(config.numa):
        words += ["-numa", ",".join(["node", f"nodeid={index}", *_cpus(node), f"memdev=ram{index}"])]
    for index, node in enumerate(config.numa):
        for other, distance in enumerate(node.distances):
            if other != index:
                words += ["-numa", f"dist,src={index},dst={other},val={distance}"]
    return words


def start_seconds(config: MachineConfig) -> float:
    """How long filling its memory may take before QEMU answers: one GiB in a second, where it is filled."""
    return config.memory_bytes / GIB if config.page_bytes is not None else 0.0


def _backend(name: str, size: int, host_node: int | None, config: MachineConfig) -> str:
    values: dict[str, object] = {"qom-type": "memory-backend-ram", "id": name, "size": size}
    if config.page_bytes is not None:
        values |= {"qom-type": "memory-backend-memfd", "hugetlb": True, "hugetlbsize": config.page_bytes}
        values |= {"prealloc": True, "prealloc-threads": min(config.cpu.count, _FILLING_THREADS)}
    if host_node is not None:
        values |= {"host-nodes": [host_node], "policy": "bind"}
    # By the plain name and not by its path in QEMU's object tree: that is what saved state has.
    values["x-use-canonical-path-for-ramblock-id"] = False
    return json.dumps(values, separators=(",", ":"))


def _cpus(node: GuestNodeConfig) -> list[str]:
    """The CPU-to-node map is always named: QEMU's own guess for Arm is not the silicon's."""
    return [f"cpus={part}" for part in format_cpu_list(node.vcpus).split(",") if part]


def _check_nodes(config: MachineConfig) -> None:
    places = Counter(vcpu for node in config.numa for vcpu in node.vcpus)
    if set(places) != set(range(config.cpu.count)) or max(places.values()) > 1:
        raise _invalid(f"each of the vCPUs 0 to {config.cpu.count - 1} must be in exactly one NUMA node")
    total = sum(node.memory_bytes for node in config.numa)
    if total != config.memory_bytes or any(node.memory_bytes <= 0 for node in config.numa):
        has = format_bytes(config.memory_bytes)
        raise _invalid(f"the NUMA nodes' memory adds up to {format_bytes(total)}, but the VM has {has}")
    for index, node in enumerate(config.numa):
        others = [far for other, far in enumerate(node.distances) if other != index]
        if len(node.distances) != len(config.numa) or node.distances[index] != _LOCAL:
            raise _invalid(f"NUMA node {index} needs a distance to each node, {_LOCAL} to itself")
        if any(not _LOCAL <= far <= _FARTHEST for far in others):
            raise _invalid(f"NUMA node {index} has a distance that is not between {_LOCAL} and {_FARTHEST}")


def _invalid(message: str) -> Refused:
    return Refused(message, code="InvalidNUMA", field="spec.numa.nodes")
