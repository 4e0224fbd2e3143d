"""A placement in the words of the API."""

from __future__ import annotations

from carmel.cpulist import format_cpu_list
from carmel.placement.model import Placement
from carmel.resources.virtualmachine import GuestNodePlacement, PlacementStatus, VcpuPlacement


def placement_status(placement: Placement, host_page_bytes: int) -> PlacementStatus:
    """What ``status.placement`` says. A guest that sees no NUMA has no guest nodes to tell of."""
    nodes = [
        GuestNodePlacement(
            id=node.id, vcpus=format_cpu_list(node.vcpus), memory_bytes=node.memory_bytes, host_node=node.host_node
        )
        for node in placement.nodes
    ]
    return PlacementStatus(
        policy=placement.request.policy,
        vcpus=[VcpuPlacement(id=id_, host_cpus=format_cpu_list(cpus)) for id_, cpus in enumerate(placement.vcpus)],
        memory_nodes=list(placement.memory_nodes),
        page_size_bytes=placement.request.page_bytes or host_page_bytes,
        emulator_cpus=format_cpu_list(placement.emulator_cpus) or None,
        guest_nodes=nodes if len(nodes) > 1 else None,
        reasons=list(placement.reasons),
        next_best=placement.next_best,
    )
