"""Pure: placements that no placer made, for VMs of which nobody knows where they are and for those under way."""

from __future__ import annotations

from dataclasses import replace

from carmel.hardware.model import Hardware
from carmel.placement.model import GuestNode, GuestTopology, Placement, Request
from carmel.resources.virtualmachine import CpuPolicy
from carmel.units import MIB


def placed_nowhere(request: Request, hardware: Hardware) -> Placement:
    """A shared VM that lies everywhere: on each node with its share of memory and of vCPUs."""
    nodes = [node for node in hardware.nodes if node.memory_bytes and node.cpus] or list(hardware.nodes)
    total = sum(node.memory_bytes for node in nodes) or 1
    guest_nodes, left = [], request.memory_bytes
    for index, node in enumerate(nodes):
        last = index == len(nodes) - 1
        share = left if last else min(left, request.memory_bytes * node.memory_bytes // total // MIB * MIB)
        left -= share
        vcpus = tuple(range(index, request.vcpus, len(nodes)))
        guest_nodes.append(GuestNode(index, vcpus, share, node.id, tuple(10 for _ in nodes)))
    return Placement(
        request=replace(request, policy=CpuPolicy.SHARED, page_bytes=None, movable=False),
        vcpus=tuple(nodes[vcpu % len(nodes)].cpus for vcpu in range(request.vcpus)),
        nodes=tuple(guest_nodes),
        topology=GuestTopology(1, 1, request.vcpus, 1),
        emulator_cpus=tuple(sorted(cpu.id for cpu in hardware.cpus)),
    )


def leaving_uid(uid: str) -> str:
    """What occupancy calls the place that a VM is just leaving."""
    return f"{uid} leaving"


def leaving(before: Placement, after: Placement) -> Placement | None:
    """What a VM still has at the old place while it is taken to the new one: dedicated CPUs, and the memory of nodes
    that it goes away from."""
    nodes = tuple(node for node in before.nodes if node.host_node not in after.memory_nodes)
    dedicated = before.request.policy is CpuPolicy.DEDICATED
    if not nodes and not dedicated:
        return None
    request = replace(before.request, uid=leaving_uid(before.request.uid), movable=False)
    return replace(before, request=request, nodes=nodes, vcpus=before.vcpus if dedicated else ())


def astray(placement: Placement, hardware: Hardware) -> bool:
    """Whether a VM runs where the machine has nothing any more: on a node that is gone, or with a vCPU without CPU."""
    cpus = {cpu.id for cpu in hardware.cpus}
    nodes = {node.id for node in hardware.nodes}
    return not nodes.issuperset(placement.memory_nodes) or any(cpus.isdisjoint(one) for one in set(placement.vcpus))


def same_place(one: Placement, other: Placement) -> bool:
    return one.vcpus == other.vcpus and [n.host_node for n in one.nodes] == [n.host_node for n in other.nodes]
