"""What a host keeps for itself when nobody said anything. The reasons stand in docs/placement.md."""

from __future__ import annotations

from collections.abc import Iterable

from carmel.hardware.model import Hardware
from carmel.placement.model import Rules
from carmel.resources.virtualmachine import MAX_VCPUS
from carmel.resources.virtualmachine.rules import GICV2_VCPUS
from carmel.units import GIB, MIB

CPUS_TO_KEEP_SOME = 16
"""From here on a core of each socket is the host's: at most an eighth of the CPUs, usually far less."""
_BASE = 256 * MIB
_SHARE = 64
_MOST = 8 * GIB
_NEVER_MORE = 8
"""Never more than an eighth of memory."""


def default_rules(
    hardware: Hardware,
    *,
    reserved_cpus: Iterable[int] | None = None,
    reserved_memory: int | None = None,
    cpu_overcommit: float | None = None,
    max_vcpus: int | None = None,
    no_dedicated: str | None = None,
) -> Rules:
    """The rules of a host. ``None`` is what the administrator left open; ``reserved_memory`` is the bytes of all
    nodes together.

    An administrator who names the reserved CPUs, or says that there are none, has said all about CPUs.
    """
    kept = frozenset(reserved_cpus) if reserved_cpus is not None else _reserved_cpus(hardware)
    return Rules(
        reserved_cpus=kept,
        reserved_memory=_by_node(hardware, _memory(hardware) if reserved_memory is None else reserved_memory),
        cpu_overcommit=Rules().cpu_overcommit if cpu_overcommit is None else cpu_overcommit,
        max_vcpus=max_vcpus if max_vcpus is not None else _max_vcpus(hardware),
        no_dedicated=no_dedicated,
        shared_only_cpus=_boot_core(hardware) if reserved_cpus is None else frozenset(),
    )


def _reserved_cpus(hardware: Hardware) -> frozenset[int]:
    if len(hardware.cpus) < CPUS_TO_KEEP_SOME:
        return frozenset()
    firsts = [min(socket.cpus) for socket in hardware.sockets if socket.cpus]
    return frozenset(cpu for first in firsts for cpu in _core(hardware, first))


def _boot_core(hardware: Hardware) -> frozenset[int]:
    """The core of the lowest CPU: interrupts that nobody spread are there, and often it cannot go offline."""
    lowest = min((cpu.id for cpu in hardware.cpus), default=None)
    return frozenset() if lowest is None else _core(hardware, lowest)


def _core(hardware: Hardware, cpu: int) -> frozenset[int]:
    return next((frozenset(core.cpus) for core in hardware.cores if cpu in core.cpus), frozenset((cpu,)))


def _max_vcpus(hardware: Hardware) -> int:
    return GICV2_VCPUS if hardware.kvm.present and hardware.kvm.gic_version == 2 else MAX_VCPUS


def _memory(hardware: Hardware) -> int:
    ordinary = sum(_ordinary(hardware).values())
    return min(_BASE + ordinary // _SHARE, _MOST, ordinary // _NEVER_MORE)


def _ordinary(hardware: Hardware) -> dict[int, int]:
    """Bytes of each node that are in no pool of huge pages."""
    pools = {node.id: sum(pool.total * pool.size_bytes for pool in node.huge_pages) for node in hardware.nodes}
    if len(hardware.nodes) == 1 and not hardware.nodes[0].huge_pages:
        pools[hardware.nodes[0].id] = sum(pool.total * pool.size_bytes for pool in hardware.huge_pages)
    return {node.id: max(0, node.memory_bytes - pools[node.id]) for node in hardware.nodes}


def _by_node(hardware: Hardware, size: int) -> dict[int, int]:
    """Every node gives in proportion, for the kernel takes from every one. Whole MiB, rounded up."""
    ordinary = _ordinary(hardware)
    total = sum(ordinary.values())
    if not total:
        return {}
    return {node: -(-size * share // total // MIB) * MIB for node, share in ordinary.items() if share}
