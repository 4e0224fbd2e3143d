"""Pure: what a VM asks of placement, at a start from its spec and when it comes back from its saved memory."""

from __future__ import annotations

from dataclasses import replace

from carmel.errors import Refused
from carmel.hardware.model import Hardware
from carmel.placement.model import GuestNodeWish, GuestTopology, Placement, Refusal, Request
from carmel.placement.requests import nodes_near, request_of
from carmel.resources.virtualmachine import VirtualMachine, VirtualMachineSpec


def start_request(vm: VirtualMachine, hardware: Hardware) -> tuple[Request, Refusal | None]:
    """With a refusal, which is permanent, if the spec names a device that the host does not have."""
    try:
        return request_of(vm, nodes_near(vm, hardware)), None
    except Refused as error:
        where = f"{error.field}: " if error.field else ""
        refusal = Refusal(error.code, f"{where}{error.message}", error.hint or "", permanent=True)
        return request_of(vm, frozenset()), refusal


def restore_request(
    vm: VirtualMachine, spec: VirtualMachineSpec, before: Placement | None, hardware: Hardware
) -> Request:
    """The guest wakes up in the machine it fell asleep in: same sockets, same NUMA, whatever nodes of the host they
    are on. ``before`` is ``None`` for a VM that was suspended before there was placement: its guest saw one socket and
    no NUMA. A device that it was near to and that is gone is no reason to keep its memory on the disk."""
    was = vm.model_copy(update={"spec": spec})
    try:
        near = nodes_near(was, hardware)
    except Refused:
        near = frozenset()
    request = request_of(was, near)
    if before is None:
        topology = request.topology or GuestTopology(sockets=1, clusters=1, cores=request.vcpus, threads=1)
        whole = GuestNodeWish(tuple(range(request.vcpus)), request.memory_bytes, (10,))
        return replace(request, topology=topology, guest_nodes=request.guest_nodes or (whole,))
    shape = tuple(GuestNodeWish(node.vcpus, node.memory_bytes, node.distances) for node in before.nodes)
    return replace(request, topology=before.topology, guest_nodes=shape)
