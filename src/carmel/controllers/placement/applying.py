"""Pure: from a placement to what the hypervisor is told."""

from __future__ import annotations

from carmel.controllers.placement.ground import Ground
from carmel.hypervisor.config import CpuConfig, GuestNodeConfig, Pinning
from carmel.placement.model import Placement
from carmel.resources.virtualmachine import Cpu, CpuPolicy


def pinning_of(placement: Placement, ground: Ground) -> Pinning | None:
    """``None`` where nothing has to be held: the VM may use every CPU and node of the host, or the host has no means.

    Starts without pinning cost nothing that QEMU alone does not.
    """
    if not ground.means.pins or _anywhere(placement, ground):
        return None
    return held_at(placement)


def held_at(placement: Placement) -> Pinning:
    """The same, where a VM is held already: one that may run anywhere again is told all CPUs by name."""
    return Pinning(
        vcpus=placement.vcpus,
        emulator=placement.emulator_cpus or tuple(sorted({cpu for cpus in placement.vcpus for cpu in cpus})),
        memory_nodes=placement.memory_nodes,
        exclusive=placement.request.policy is CpuPolicy.DEDICATED,
    )


def guest_nodes(placement: Placement, ground: Ground) -> tuple[GuestNodeConfig, ...]:
    """Empty on a host with one node for a guest that sees none: QEMU's memory is then not split or bound.

    It depends on the machine and the guest's shape alone, never on how the host is used: the memory of a suspended VM
    must find the very same blocks again.
    """
    numa = len(ground.hardware.nodes) > 1
    if not numa and len(placement.nodes) == 1:
        return ()
    return tuple(
        GuestNodeConfig(
            vcpus=node.vcpus,
            memory_bytes=node.memory_bytes,
            distances=node.distances,
            host_node=node.host_node if numa else None,
        )
        for node in placement.nodes
    )


def cpu_config(cpu: Cpu, placement: Placement) -> CpuConfig:
    shape = placement.topology
    return CpuConfig(
        count=cpu.count,
        sockets=shape.sockets,
        clusters=shape.clusters,
        cores=shape.cores,
        threads=shape.threads,
        model=cpu.model,
        nested=cpu.nested_virtualization,
        gic_version=cpu.gic_version,
    )


def _anywhere(placement: Placement, ground: Ground) -> bool:
    if placement.request.policy is CpuPolicy.DEDICATED or len(ground.hardware.nodes) > 1:
        return False
    every = {cpu.id for cpu in ground.hardware.cpus}
    return all(set(cpus) >= every for cpus in (*placement.vcpus, placement.emulator_cpus or tuple(every)))
