"""Pure: what VMs are placed on. The machine, the rules for its use, and what of them could not be taken as they are."""

from __future__ import annotations

from dataclasses import dataclass, replace

from carmel.cpulist import format_cpu_list, parse_cpu_list
from carmel.errors import Refused
from carmel.hardware.model import Cpu, CpuKind, Group, Hardware, NumaNode
from carmel.placement.defaults import default_rules
from carmel.placement.model import Rules
from carmel.placement.silicon import Silicon, survey
from carmel.resources.host import HostPlacementSpec
from carmel.units import human_bytes, parse_bytes


@dataclass(frozen=True, slots=True)
class Means:
    """What this host can enforce. ``pins``: threads can be held on CPUs. ``moves_memory``: that of a running VM can be
    taken to other nodes. ``no_dedicated`` is a sentence: why CPUs cannot be had exclusively. ``cpus`` and ``nodes`` are
    those that VMs may have at all, in a container say; ``None``: every one."""

    pins: bool = True
    moves_memory: bool = True
    no_dedicated: str | None = None
    cpus: frozenset[int] | None = None
    nodes: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class Ground:
    """``problems`` are sentences about rules that contradict the machine: those do not count."""

    hardware: Hardware
    rules: Rules
    silicon: Silicon
    means: Means
    problems: tuple[str, ...] = ()


def make_ground(hardware: Hardware, spec: HostPlacementSpec, means: Means, max_vcpus: int | None) -> Ground:
    """Raises ``Refused`` (``HardwareNotRead``) for a machine that VMs cannot be placed on."""
    check(hardware)
    cpus, cpu_problem = _reserved_cpus(hardware, spec.reserved_cpus)
    memory, memory_problem = _reserved_memory(hardware, spec.reserved_memory)
    rules = default_rules(
        hardware,
        reserved_cpus=cpus,
        reserved_memory=memory,
        cpu_overcommit=spec.cpu_overcommit,
        max_vcpus=max_vcpus,
        no_dedicated=means.no_dedicated,
    )
    rules = _within(rules, hardware, means)
    return Ground(
        hardware=hardware,
        rules=rules,
        silicon=survey(hardware, rules),
        means=means,
        problems=tuple(problem for problem in (cpu_problem, memory_problem) if problem),
    )


def check(hardware: Hardware) -> None:
    """Whether there is anything to place VMs on. Raises ``Refused`` (``HardwareNotRead``)."""
    if not hardware.cpus:
        raise Refused("the machine was read and has no CPU", code="HardwareNotRead")
    if not hardware.nodes:
        raise Refused("the machine was read and has no NUMA node, not even node 0", code="HardwareNotRead")
    if hardware.memory_bytes <= 0:
        raise Refused("the machine was read and has no memory", code="HardwareNotRead")


def _within(rules: Rules, hardware: Hardware, means: Means) -> Rules:
    """What VMs may not have at all is kept from them like what the host keeps for itself."""
    nodes = frozenset(node.id for node in hardware.nodes)
    closed = nodes - means.nodes if means.nodes is not None else frozenset()
    online = frozenset(cpu.id for cpu in hardware.cpus)
    open_cpus = {cpu.id for cpu in hardware.cpus if cpu.node not in closed} & (means.cpus or online)
    if not open_cpus or open_cpus == online:
        return rules
    # Where nothing is left beside what the host keeps by itself, it keeps nothing.
    kept = rules.reserved_cpus if open_cpus - rules.reserved_cpus else frozenset()
    memory = {node.id: node.memory_bytes for node in hardware.nodes if node.id in closed}
    return replace(
        rules,
        reserved_cpus=kept | (online - open_cpus),
        reserved_memory={**rules.reserved_memory, **memory},
    )


def plain_hardware(architecture: str, page_bytes: int, cpus: int, memory_bytes: int) -> Hardware:
    """A machine of which no more is known: one socket, one node. VMs run on it; nothing is near or far."""
    every = tuple(range(cpus))
    return Hardware(
        architecture=architecture,
        page_bytes=page_bytes,
        cpus=tuple(Cpu(id=cpu, socket=0, core=cpu, node=0) for cpu in every),
        nodes=(NumaNode(id=0, cpus=every, memory_bytes=memory_bytes, distances={0: 10}),),
        cpu_kinds=(CpuKind(name="CPU", cpus=every),),
        sockets=(Group(id=0, cpus=every, socket=0),),
    )


def _reserved_cpus(hardware: Hardware, wanted: str | None) -> tuple[tuple[int, ...] | None, str]:
    if wanted is None:
        return None, ""
    reserved = parse_cpu_list(wanted)
    online = {cpu.id for cpu in hardware.cpus}
    there = tuple(cpu for cpu in reserved if cpu in online)
    if len(there) == len(online):
        return None, f"spec.placement.reservedCpus {wanted} leaves no CPU for VMs: the host's own choice counts instead"
    absent = sorted(set(reserved) - online)
    if not absent:
        return there, ""
    which = format_cpu_list(absent)
    are = "is no CPU" if len(absent) == 1 else "are no CPUs"
    return there, f"spec.placement.reservedCpus: {which} {are} of this machine, or not online: left out"


def _reserved_memory(hardware: Hardware, wanted: str | None) -> tuple[int | None, str]:
    if wanted is None:
        return None, ""
    reserved, total = parse_bytes(wanted), hardware.memory_bytes
    if reserved < total:
        return reserved, ""
    return None, (
        f"spec.placement.reservedMemory {wanted} leaves nothing for VMs of the {human_bytes(total)} that there are: "
        "the host's own choice counts instead"
    )
