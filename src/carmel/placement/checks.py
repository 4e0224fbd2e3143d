"""Requests that no state of the machine could satisfy, each with what is wrong with it."""

from __future__ import annotations

from carmel.placement.model import Refusal, Request
from carmel.placement.occupancy import granule
from carmel.placement.silicon import Silicon
from carmel.resources.virtualmachine import CpuPolicy
from carmel.units import format_bytes, human_bytes


def refuse_forever(silicon: Silicon, request: Request) -> Refusal | None:
    """What is wrong whoever else is on the machine."""
    checks = (_counts, _topology, _guest_nodes, _most_vcpus, _dedicated, _pages, _memory_unit)
    return next((refusal for check in checks if (refusal := check(silicon, request)) is not None), None)


def _refusal(code: str, message: str, hint: str) -> Refusal:
    return Refusal(code, message, hint, permanent=True)


def _counts(_: Silicon, request: Request) -> Refusal | None:
    if request.vcpus > 0 and request.memory_bytes > 0:
        return None
    return _refusal(
        "InvalidRequest",
        f"{request.name} asks for {request.vcpus} vCPUs and {human_bytes(request.memory_bytes)} of memory",
        "ask for at least one vCPU and some memory",
    )


def _topology(_: Silicon, request: Request) -> Refusal | None:
    shape = request.topology
    if shape is None or (
        shape.vcpus == request.vcpus and min(shape.sockets, shape.clusters, shape.cores, shape.threads) > 0
    ):
        return None
    return _refusal(
        "InvalidTopology",
        f"{shape.sockets} sockets x {shape.clusters} clusters x {shape.cores} cores x {shape.threads} threads are "
        f"{shape.vcpus} vCPUs, not {request.vcpus}",
        "make the product of spec.cpu.topology equal to spec.cpu.count, or leave the topology out",
    )


def _guest_nodes(_: Silicon, request: Request) -> Refusal | None:
    if not request.guest_nodes:
        return None
    vcpus = sorted(vcpu for wish in request.guest_nodes for vcpu in wish.vcpus)
    memory = sum(wish.memory_bytes for wish in request.guest_nodes)
    if vcpus != list(range(request.vcpus)):
        trouble = f"their vCPUs are not each of 0 to {request.vcpus - 1} once"
    elif memory != request.memory_bytes or any(wish.memory_bytes <= 0 for wish in request.guest_nodes):
        trouble = f"their memory adds up to {human_bytes(memory)}, not {human_bytes(request.memory_bytes)}"
    elif any(len(wish.distances) != len(request.guest_nodes) for wish in request.guest_nodes):
        trouble = f"each needs a distance to each of the {len(request.guest_nodes)} nodes"
    else:
        return None
    return _refusal("InvalidNUMA", f"the guest's NUMA nodes do not add up: {trouble}", "correct spec.numa.nodes")


def _most_vcpus(silicon: Silicon, request: Request) -> Refusal | None:
    most = silicon.rules.max_vcpus
    if most is None or request.vcpus <= most:
        return None
    return _refusal(
        "TooManyCPUs",
        f"{request.vcpus} vCPUs are more than the {most} that one VM can have here, by its interrupt controller",
        f"ask for at most {most} vCPUs",
    )


def _dedicated(silicon: Silicon, request: Request) -> Refusal | None:
    reason = silicon.rules.no_dedicated
    if request.policy is not CpuPolicy.DEDICATED or reason is None:
        return None
    return _refusal(
        "DedicatedCPUsUnavailable",
        f"CPUs cannot be dedicated to a VM on this host: {reason.removesuffix('.')}",
        "set spec.cpu.policy to Shared, or change the host",
    )


def _pages(silicon: Silicon, request: Request) -> Refusal | None:
    if request.page_bytes is None or request.page_bytes in silicon.page_sizes:
        return None
    sizes = ", ".join(map(format_bytes, silicon.page_sizes))
    return _refusal(
        "UnsupportedPageSize",
        f"this host's kernel has no huge pages of {format_bytes(request.page_bytes)}",
        f"it has {sizes}: set spec.memory.pageSize to one of them" if sizes else "leave spec.memory.pageSize out",
    )


def _memory_unit(_: Silicon, request: Request) -> Refusal | None:
    grain = granule(request.page_bytes)
    sizes = [wish.memory_bytes for wish in request.guest_nodes] or [request.memory_bytes]
    odd = next((size for size in sizes if size % grain), None)
    if odd is None:
        return None
    return _refusal(
        "InvalidMemory",
        f"{format_bytes(odd)} of memory are no whole number of {format_bytes(grain)}",
        f"make it a multiple of {format_bytes(grain)}",
    )
