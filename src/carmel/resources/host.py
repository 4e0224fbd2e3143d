"""Host: the machine that VMs run on."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from pydantic import Field, field_validator

from carmel.cpulist import parse_cpu_list
from carmel.resources.base import Model, Resource, Size, Status, Time
from carmel.resources.host_hardware import HardwareStatus
from carmel.resources.kinds import Column, Kind


class RebalanceMode(StrEnum):
    """``Automatic``: moves that make things better are made by themselves. ``Manual``: they are only proposed."""

    AUTOMATIC = "Automatic"
    MANUAL = "Manual"


class RebalanceSpec(Model):
    """When and how far running VMs may be moved on this host."""

    mode: RebalanceMode = RebalanceMode.AUTOMATIC
    memory_per_pass: Size = Field(default="64Gi", description="How much memory one pass may copy between nodes.")
    moves_per_pass: int = Field(default=8, ge=1, le=1024, description="How many VMs one pass may move.")
    requested_at: Time | None = Field(
        default=None, description="A time later than status.rebalance.answeredAt makes the proposed moves once."
    )


class HostPlacementSpec(Model):
    """How VMs may use the host's CPUs and memory."""

    reserved_cpus: str | None = Field(
        default=None,
        max_length=4096,
        description="CPUs kept for the host itself, such as 0,80. Chosen by the host when absent; empty: none.",
    )
    reserved_memory: Size | None = Field(
        default=None, description="Memory kept for the host itself. Chosen by the host when absent."
    )
    cpu_overcommit: float = Field(
        default=16.0, ge=1, le=1024, description="vCPUs of shared VMs for each CPU that they may use."
    )
    rebalance: RebalanceSpec = Field(default_factory=RebalanceSpec)

    @field_validator("reserved_cpus")
    @classmethod
    def _a_list(cls, value: str | None) -> str | None:
        if value is not None:
            parse_cpu_list(value)
        return value


class HostSpec(Model):
    """What is wanted of a host."""

    unschedulable: bool = Field(default=False, description="Start no more VMs here.")
    placement: HostPlacementSpec = Field(default_factory=HostPlacementSpec)


class HostEndpoint(Model):
    """Where this host's own server answers: console and upload streams go there."""

    name: str
    url: str


class HostSystem(Model):
    """The machine and its operating system."""

    architecture: str
    board: str | None = None
    cpu_model: str | None = None
    operating_system: str | None = None
    kernel: str | None = None
    boot_id: str | None = Field(default=None, alias="bootID")
    page_size_bytes: int | None = None


class HypervisorInfo(Model):
    """What runs the VMs."""

    accelerator: str
    qemu_version: str | None = None
    qemu_binary: str | None = None
    default_machine_type: str | None = None
    firmware: bool = False
    sandbox: bool = False


class HostResources(Model):
    """CPUs and memory: of the machine, or what its VMs have."""

    cpus: int
    memory: Size


class HostPlacementStatus(Model):
    """How placement uses the host: ``free_cpus`` have neither a dedicated vCPU nor the host's own work.

    ``no_dedicated`` says why CPUs cannot be dedicated here.
    """

    reserved_cpus: str
    reserved_memory_bytes: int
    free_cpus: str | None = None
    no_dedicated: str | None = None


class ProposedMove(Model):
    """A running VM that would be better elsewhere on this host. ``from_nodes`` and ``to_nodes`` are NUMA nodes."""

    namespace: str
    name: str
    from_nodes: list[int]
    to_nodes: list[int]
    from_cpus: str
    to_cpus: str
    memory_bytes: int
    reason: str


class DoneMove(ProposedMove):
    """``error`` absent: it was made."""

    at: Time
    error: str | None = None


class RebalanceStatus(Model):
    """What repair would do, and the last moves that it made (newest first)."""

    proposed: list[ProposedMove] | None = None
    done: list[DoneMove] | None = None
    answered_at: Time | None = None


class HostStatus(Status):
    """What a host is."""

    carmel_version: str | None = None
    system: HostSystem | None = None
    hypervisor: HypervisorInfo | None = None
    capacity: HostResources | None = None
    allocated: HostResources | None = None
    virtual_machines: int | None = None
    hardware: HardwareStatus | None = None
    placement: HostPlacementStatus | None = None
    rebalance: RebalanceStatus | None = None
    endpoints: list[HostEndpoint] | None = Field(
        default=None, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    )


class Host(Resource):
    """A host."""

    storage_version: ClassVar[int] = 2

    spec: HostSpec = Field(default_factory=HostSpec)
    status: HostStatus = Field(default_factory=HostStatus)


HOST = Kind(
    group="carmel.dev",
    version="v1alpha1",
    kind="Host",
    plural="hosts",
    namespaced=False,
    categories=("carmel",),
    model=Host,
    columns=(
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Arch", ".status.system.architecture"),
        Column("Accelerator", ".status.hypervisor.accelerator"),
        Column("CPUs", ".status.capacity.cpus", "integer"),
        Column("Memory", ".status.capacity.memory"),
        Column("VMs", ".status.virtualMachines", "integer"),
        Column("Board", ".status.system.board", priority=1),
        Column("QEMU", ".status.hypervisor.qemuVersion", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
