"""Why there is no room, in sentences: what is missing, and what would fit."""

from __future__ import annotations

from collections.abc import Iterable

from carmel.placement.model import Refusal, Request
from carmel.placement.occupancy import Occupancy
from carmel.placement.room import Rooms, rooms
from carmel.resources.virtualmachine import CpuPolicy
from carmel.units import format_bytes, human_bytes

TOO_COMPLEX = "PlacementTooComplex"
_NAMED_NODES = 4


def no_room(found: Rooms) -> Refusal:
    """Too few CPUs, or too little memory; ``permanent`` where the empty machine would not do either, and then for want
    of what it will never have."""
    empty = rooms(Occupancy.of(found.occupancy.silicon), found.request)
    never_memory = empty.kinds and empty.most_memory < found.request.memory_bytes
    return _no_memory(found, empty) if found.kinds or never_memory else _no_cpus(found, empty)


def _no_cpus(found: Rooms, empty: Rooms) -> Refusal:
    request, silicon = found.request, found.occupancy.silicon
    missing = request.vcpus - found.most_cpus
    kind = "" if len(silicon.kinds) == 1 else " of one kind"
    if request.policy is CpuPolicy.DEDICATED:
        message = (
            f"{_are(request.vcpus, 'dedicated CPU')} wanted and {found.most_cpus}{kind} can be had: "
            f"{_are(missing)} missing"
        )
        ways = "or share CPUs (spec.cpu.policy: Shared)"
    else:
        ratio = f"{silicon.rules.cpu_overcommit:g} vCPUs for each CPU"
        message = (
            f"{_are(request.vcpus, 'vCPU')} wanted and {found.most_cpus} more{kind} may run here ({ratio}): "
            f"{_are(missing)} too many"
        )
        ways = "or raise spec.placement.cpuOvercommit of the host"
    permanent = not empty.kinds
    fewer = f"ask for at most {empty.most_cpus}" if empty.most_cpus else "ask another host"
    hint = f"{fewer if permanent else f'{_fits(found)}; {_wait()}'}, {ways}"
    return Refusal("InsufficientCPUs", message, hint, permanent)


def _no_memory(found: Rooms, empty: Rooms) -> Refusal:
    request = found.request
    missing = request.memory_bytes - found.most_memory
    permanent = empty.most_memory < request.memory_bytes
    by_node = _by_node(found)
    if request.page_bytes is not None:
        size, pages = format_bytes(request.page_bytes), missing // request.page_bytes
        return Refusal(
            "InsufficientHugePages",
            f"{_are(request.memory_bytes // request.page_bytes, 'huge page')} wanted of {size} each, and "
            f"{_are(found.most_memory // request.page_bytes)} free ({by_node})",
            f"reserve {pages} more of {size} on the host, for example by vm.nr_hugepages or hugepages= on the "
            f"kernel's command line{'' if permanent else ', or ' + _wait()}",
            permanent,
        )
    return Refusal(
        "InsufficientMemory",
        f"{human_bytes(request.memory_bytes)} of memory are wanted and {human_bytes(found.most_memory)} are free "
        f"({by_node}): {human_bytes(missing)} more are missing",
        f"ask for at most {human_bytes(empty.most_memory)}: the empty host has no more for VMs"
        if permanent
        else f"{_fits(found)}; {_wait()}",
        permanent,
    )


def no_packing(found: Rooms, *, permanent: bool) -> Refusal:
    """The sums are right, but a guest node fits nowhere beside the others."""
    request = found.request
    largest = max(wish.memory_bytes for wish in request.guest_nodes)
    what = "huge pages" if request.page_bytes is not None else "memory"
    if len(request.guest_nodes) == 1:
        message = f"the guest's one NUMA node has {human_bytes(largest)} of memory, and no node has as much free"
    else:
        message = (
            f"the guest's {len(request.guest_nodes)} NUMA nodes, of up to {human_bytes(largest)}, do not fit the "
            "nodes of the host, each on one of them"
        )
    return Refusal(
        "InsufficientHugePages" if request.page_bytes is not None else "InsufficientMemory",
        f"{message} ({_by_node(found)} {what} free)",
        "make the guest's nodes smaller or more (spec.numa)" + ("" if permanent else f", or {_wait()}"),
        permanent,
    )


def too_complex(request: Request) -> Refusal:
    return Refusal(
        TOO_COMPLEX,
        f"no place was found for the guest's {len(request.guest_nodes)} NUMA nodes, and there are too many ways to put "
        "them together to try all",
        "use fewer guest nodes, or guest nodes of one size (spec.numa)",
    )


def _are(count: int, noun: str = "") -> str:
    """``1 vCPU is``, ``2 vCPUs are``, ``2 are``."""
    words = f"{count} {noun}{'s' if noun and count != 1 else ''}".rstrip()
    return f"{words} {'is' if count == 1 else 'are'}"


def _wait() -> str:
    return "wait until other VMs end"


def _fits(found: Rooms) -> str:
    if not found.most_cpus or not found.most_memory:
        return "nothing of this kind fits here now"
    return f"what fits here now: {found.most_cpus} vCPUs and {human_bytes(found.most_memory)} ({_by_node(found)})"


def _by_node(found: Rooms) -> str:
    """``node 0: 12 GiB, node 1: 3 GiB``; the roomiest if they are many."""
    nodes = sorted(found.memory, key=lambda node: (-found.memory[node], node))[:_NAMED_NODES]
    told = [f"node {node}: {_cpus_at(found, node)}{human_bytes(found.memory[node])}" for node in sorted(nodes)]
    rest = len(found.memory) - len(nodes)
    return ", ".join([*told, *([f"less on {rest} more"] if rest else [])])


def _cpus_at(found: Rooms, node: int) -> str:
    cells: Iterable[int] = found.occupancy.silicon.nodes[node].cells
    count = sum(found.cpus[cell] for cell in cells)
    return f"{count} vCPUs, " if found.request.policy is CpuPolicy.DEDICATED else ""
