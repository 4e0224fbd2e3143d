"""Host: the machine that VMs run on."""

from __future__ import annotations

from pydantic import Field

from carmel.resources.base import Model, Resource, Size, Status
from carmel.resources.kinds import Column, Kind


class HostSpec(Model):
    """What is wanted of a host."""

    unschedulable: bool = Field(default=False, description="Start no more VMs here.")


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


class HostStatus(Status):
    """What a host is."""

    carmel_version: str | None = None
    system: HostSystem | None = None
    hypervisor: HypervisorInfo | None = None
    capacity: HostResources | None = None
    allocated: HostResources | None = None
    virtual_machines: int | None = None
    endpoints: list[HostEndpoint] | None = Field(
        default=None, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    )


class Host(Resource):
    """A host."""

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
