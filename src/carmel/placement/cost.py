"""What is bad about where VMs are, as one number, so that repair only ever does what makes it smaller.

The unit is a CPU's worth of work lost, roughly: what counts is only which of two states is better.
"""

from __future__ import annotations

from carmel.placement.choice import nearness
from carmel.placement.model import Placement
from carmel.placement.occupancy import Occupancy, cell_of
from carmel.placement.silicon import LOCAL, Silicon

REMOTE = 0.5
"""Of a vCPU whose memory is on another node."""
APART = 0.25
"""Of each vCPU of a VM that is on more nodes than it needs, by the share of memory that is then elsewhere."""
FAR = 0.05
"""Of each vCPU, for every 10 of distance to its devices."""


def waiting(occupancy: Occupancy) -> float:
    """Of vCPUs that share a CPU: convex, so that even loads are best."""
    total = 0.0
    for cell, load in zip(occupancy.silicon.cells, occupancy.load, strict=True):
        pool = occupancy.pool(cell).bit_count()
        if load > pool:
            total += load * (load - pool) / max(pool, 1)
    return total


def remote_vcpus(silicon: Silicon, placement: Placement) -> int:
    homes = {cpus: cell_of(silicon, cpus) for cpus in set(placement.vcpus)}
    return sum(
        1
        for node in placement.nodes
        for vcpu in node.vcpus
        if (cell := homes[placement.vcpus[vcpu]]) is not None and silicon.cells[cell].node != node.host_node
    )


def apart(placement: Placement) -> float:
    """Guest nodes that the spec asks for are apart on purpose."""
    nodes = len(placement.memory_nodes)
    return 0.0 if placement.request.guest_nodes else placement.request.vcpus * (1 - 1 / nodes)


def far(silicon: Silicon, placement: Placement) -> float:
    near = placement.request.near & silicon.nodes.keys()
    nodes = [node for node in placement.memory_nodes if node in silicon.nodes]
    if not near or not nodes:
        return 0.0
    return placement.request.vcpus * (nearness(silicon, near, nodes) - LOCAL * len(near)) / 10


def badness(silicon: Silicon, placement: Placement) -> float:
    """Of one VM's place, whoever else is there."""
    return REMOTE * remote_vcpus(silicon, placement) + APART * apart(placement) + FAR * far(silicon, placement)
