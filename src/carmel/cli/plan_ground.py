"""The machine that ``carmel plan`` plans for: a board of the catalogue, a recorded machine, or a host with its VMs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from carmel.cli.host_hardware import hardware_told
from carmel.cli.host_recorded import read_recorded, recorded_name
from carmel.cli.host_view import hardware_of, memory_by_node, runs_unplaced
from carmel.client.objects import JsonObject, dig, metadata
from carmel.cpulist import parse_cpu_list
from carmel.errors import CarmelError, Invalid
from carmel.hardware.boards import find_board, synthetic
from carmel.hardware.model import Hardware
from carmel.placement.defaults import default_rules
from carmel.placement.model import GuestNode, GuestTopology, Placement, Rules
from carmel.placement.requests import nodes_near, request_of
from carmel.resources.host import HostPlacementSpec, HostPlacementStatus
from carmel.resources.virtualmachine import PlacementStatus, VirtualMachine
from carmel.units import parse_bytes


@dataclass(frozen=True, slots=True)
class Ground:
    """``placed`` are the VMs that are there already, by namespace and name; ``uncounted`` those that run there and of
    which no place is known."""

    name: str
    hardware: Hardware
    rules: Rules
    placed: Mapping[tuple[str, str], Placement]
    uncounted: tuple[str, ...] = ()


def board_ground(board_id: str, memory: str | None, huge_pages: Mapping[int, int]) -> Ground:
    """Raises ``NotFound`` for an unknown id, ``Invalid`` for memory that such a board cannot have."""
    hardware = synthetic(
        board_id, memory_bytes=parse_bytes(memory) if memory is not None else None, huge_pages=huge_pages
    )
    return Ground(find_board(board_id).name, hardware, default_rules(hardware), {})


def recorded_ground(root: Path) -> Ground:
    """Raises ``Refused`` for a folder that is no machine."""
    hardware = read_recorded(root)
    return Ground(recorded_name(root), hardware, default_rules(hardware), {})


def host_ground(host: JsonObject, vms: Sequence[JsonObject]) -> Ground:
    """A host as it tells of itself, with those of the VMs that are on it.

    Raises ``Invalid`` (``HardwareUnreadable``).
    """
    name = metadata(host, "name")
    if not dig(host, "status", "hardware"):
        raise Invalid(
            f"host {name!r} does not tell its silicon",
            code="HardwareUnreadable",
            hint="its carmeld is older than this carmel, or could not read the machine: `carmel describe host`",
        )
    try:
        hardware = hardware_told(hardware_of(host))
        rules = _rules(host, hardware)
        here = [vm for vm in vms if dig(vm, "status", "hostName") == name]
        placed = {
            (metadata(vm, "namespace"), metadata(vm, "name")): _placement(vm, hardware)
            for vm in here
            if dig(vm, "status", "placement")
        }
    except (ValidationError, ValueError) as exc:
        raise Invalid(f"what host {name!r} tells of itself cannot be read: {exc}", code="HardwareUnreadable") from exc
    uncounted = (f"{metadata(vm, 'namespace')}/{metadata(vm, 'name')}" for vm in here if runs_unplaced(vm))
    return Ground(name, hardware, rules, placed, tuple(uncounted))


def _rules(host: JsonObject, hardware: Hardware) -> Rules:
    """As the host itself makes them. The reserved CPUs of its status are those of its spec that it really has."""
    spec = HostPlacementSpec.model_validate(dig(host, "spec", "placement") or {})
    told = dig(host, "status", "placement")
    status = HostPlacementStatus.model_validate(told) if told else None
    named = status is not None and spec.reserved_cpus is not None
    return default_rules(
        hardware,
        reserved_cpus=parse_cpu_list(status.reserved_cpus) if status is not None and named else None,
        reserved_memory=status.reserved_memory_bytes if status is not None else None,
        cpu_overcommit=spec.cpu_overcommit,
        no_dedicated=status.no_dedicated if status is not None else None,
    )


def _placement(obj: JsonObject, hardware: Hardware) -> Placement:
    """What a VM has now. Its guest's shape is not told, and nobody who only counts asks for it."""
    vm = VirtualMachine.model_validate(obj)
    told = PlacementStatus.model_validate(dig(obj, "status", "placement"))
    try:
        near = nodes_near(vm, hardware)
    except CarmelError:
        near = frozenset()
    request = request_of(vm, near)
    vcpus = tuple(parse_cpu_list(vcpu.host_cpus) for vcpu in told.vcpus)
    return Placement(
        request=request,
        vcpus=vcpus,
        nodes=tuple(_guest_nodes(told, request.memory_bytes)),
        topology=GuestTopology(1, 1, len(vcpus), 1),
        emulator_cpus=parse_cpu_list(told.emulator_cpus or ""),
    )


def _guest_nodes(told: PlacementStatus, memory_bytes: int) -> list[GuestNode]:
    """A guest without NUMA has all its vCPUs at the first of its host's nodes."""
    if told.guest_nodes:
        return [
            GuestNode(node.id, parse_cpu_list(node.vcpus), node.memory_bytes, node.host_node, ())
            for node in told.guest_nodes
        ]
    every = tuple(range(len(told.vcpus)))
    parts = memory_by_node(told, memory_bytes)
    return [
        GuestNode(index, () if index else every, size, node, ()) for index, (node, size) in enumerate(parts.items())
    ]
