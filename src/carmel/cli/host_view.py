"""From what the API tells of a host and its VMs to the scene that a picture shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import ValidationError

from carmel.cli.picture_scene import Scene, Tenant, Use, arrange
from carmel.client.objects import JsonObject, dig, metadata
from carmel.cpulist import parse_cpu_list
from carmel.errors import Invalid
from carmel.resources.host import HostPlacementStatus
from carmel.resources.host_hardware import HardwareStatus
from carmel.resources.virtualmachine import CpuPolicy, PlacementStatus
from carmel.units import parse_bytes

_ENDED = {None, "PoweredOff", "Suspended"}


def scene_of(host: JsonObject, vms: Sequence[JsonObject]) -> Scene:
    """The host with those of the VMs that are on it. Raises ``Invalid`` (``HardwareUnreadable``) for what a host of
    this version would not tell."""
    here = [vm for vm in vms if dig(vm, "status", "hostName") == metadata(host, "name")]
    names = _Names(here)
    try:
        hardware = hardware_of(host)
        tenants = [_tenant(vm, names) for vm in here if dig(vm, "status", "placement")]
        use = _use(dig(host, "status", "placement"))
        unplaced = tuple(names.of(vm) for vm in here if runs_unplaced(vm))
        return arrange(hardware, tenants, Use(use.reserved, use.free, unplaced))
    except (ValidationError, ValueError) as exc:
        raise _unreadable(host, exc) from exc


def hardware_of(host: JsonObject) -> HardwareStatus:
    """Raises ``Invalid`` (``HardwareUnreadable``)."""
    try:
        return HardwareStatus.model_validate(dig(host, "status", "hardware"))
    except ValidationError as exc:
        raise _unreadable(host, exc) from exc


def runs_unplaced(vm: JsonObject) -> bool:
    """Whether it runs, and nobody knows where: it was started before there was placement."""
    return not dig(vm, "status", "placement") and dig(vm, "status", "powerState") not in _ENDED


def tenant_of(name: str, placement: PlacementStatus, memory_bytes: int) -> Tenant:
    """A VM as the picture takes it. Raises ``ValueError`` for a list of CPUs that is none."""
    return Tenant(
        name=name,
        dedicated=placement.policy is CpuPolicy.DEDICATED,
        vcpus=tuple(parse_cpu_list(vcpu.host_cpus) for vcpu in placement.vcpus),
        memory=memory_by_node(placement, memory_bytes),
        page_bytes=placement.page_size_bytes,
    )


def memory_by_node(placement: PlacementStatus, memory_bytes: int) -> Mapping[int, int]:
    """Where a guest sees no NUMA and has memory of several nodes, they are taken to have equal parts."""
    if placement.guest_nodes:
        found: dict[int, int] = {}
        for node in placement.guest_nodes:
            found[node.host_node] = found.get(node.host_node, 0) + node.memory_bytes
        return found
    return {node: memory_bytes // len(placement.memory_nodes) for node in placement.memory_nodes}


def remarks_of(host: JsonObject) -> Iterator[str]:
    """What is odd about the machine, and what its board's owner should know."""
    for path in (("hardware", "remarks"), ("hardware", "board", "quirks")):
        for remark in dig(host, "status", *path) or ():
            yield str(remark)


class _Names:
    """Names of VMs; with their namespaces only where there are several."""

    def __init__(self, vms: Sequence[JsonObject]) -> None:
        self._several = len({metadata(vm, "namespace") for vm in vms}) > 1

    def of(self, vm: JsonObject) -> str:
        name = metadata(vm, "name")
        return f"{metadata(vm, 'namespace')}/{name}" if self._several else name


def _tenant(vm: JsonObject, names: _Names) -> Tenant:
    placement = PlacementStatus.model_validate(dig(vm, "status", "placement"))
    return tenant_of(names.of(vm), placement, parse_bytes(dig(vm, "spec", "memory", "size") or 0))


def _use(told: object) -> Use:
    if told is None:
        return Use()
    placement = HostPlacementStatus.model_validate(told)
    return Use(
        reserved=frozenset(parse_cpu_list(placement.reserved_cpus)),
        free=frozenset(parse_cpu_list(placement.free_cpus)) if placement.free_cpus is not None else None,
    )


def _unreadable(host: JsonObject, exc: ValueError) -> Invalid:
    first = exc.errors()[0] if isinstance(exc, ValidationError) else None
    where = ".".join(str(part) for part in first["loc"]) if first else ""
    said = f"{where}: {first['msg']}" if first else str(exc)
    return Invalid(
        f"what host {metadata(host, 'name')!r} tells of its silicon cannot be read: {said}",
        code="HardwareUnreadable",
        hint="carmel and the host's carmeld may be of different versions: compare with `carmel version`",
    )
