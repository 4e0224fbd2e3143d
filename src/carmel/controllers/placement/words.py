"""Pure: placement in the words of VirtualMachine and Host."""

from __future__ import annotations

from collections.abc import Iterable

from carmel.cpulist import format_cpu_list
from carmel.placement.model import Move, Placement, Refusal
from carmel.resources.host import ProposedMove
from carmel.resources.virtualmachine import CpuPolicy
from carmel.units import human_bytes


def placed_sentence(host: str, placement: Placement) -> str:
    """For the condition ``Placed``: ``on host pi, NUMA node 0, CPUs 0-3``."""
    kind = "dedicated CPUs" if placement.request.policy is CpuPolicy.DEDICATED else "CPUs"
    return f"on host {host}, {nodes_in_words(placement.memory_nodes)}, {kind} {vcpu_cpus(placement)}"


def refusal_sentence(refusal: Refusal) -> str:
    """What is missing, and what would fit."""
    said = refusal.message.rstrip(".")
    return f"{said}. {refusal.hint[:1].upper()}{refusal.hint[1:].rstrip('.')}." if refusal.hint else said


def nodes_in_words(nodes: Iterable[int]) -> str:
    listed = tuple(nodes)
    return f"NUMA node{'s' if len(listed) != 1 else ''} {format_cpu_list(listed)}"


def vcpu_cpus(placement: Placement) -> str:
    return format_cpu_list(cpu for cpus in placement.vcpus for cpu in cpus)


def proposed_move(move: Move) -> ProposedMove:
    namespace, _, name = move.before.request.name.rpartition("/")
    return ProposedMove(
        namespace=namespace,
        name=name,
        from_nodes=list(move.before.memory_nodes),
        to_nodes=list(move.after.memory_nodes),
        from_cpus=vcpu_cpus(move.before),
        to_cpus=vcpu_cpus(move.after),
        memory_bytes=move.bytes,
        reason=move.reason,
    )


def move_sentence(move: Move) -> str:
    """For an event: from where, to where, how much memory, what for."""
    before, after = move.before.memory_nodes, move.after.memory_nodes
    if before == after:
        way = f"CPUs {vcpu_cpus(move.before)} to {vcpu_cpus(move.after)}"
    else:
        way = f"{nodes_in_words(before)} to {nodes_in_words(after)}"
    memory = f", {human_bytes(move.bytes)} of memory" if move.bytes else ""
    return f"{way}{memory}. {move.reason}"
