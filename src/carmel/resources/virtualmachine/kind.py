"""The kind VirtualMachine."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from carmel.resources.base import Resource
from carmel.resources.kinds import Column, Kind
from carmel.resources.virtualmachine.rules import validate
from carmel.resources.virtualmachine.spec import VirtualMachineSpec
from carmel.resources.virtualmachine.status import VirtualMachineStatus


class VirtualMachine(Resource):
    """A virtual machine."""

    storage_version: ClassVar[int] = 3

    spec: VirtualMachineSpec = Field(default_factory=VirtualMachineSpec)
    status: VirtualMachineStatus = Field(default_factory=VirtualMachineStatus)


VIRTUAL_MACHINE = Kind(
    group="carmel.dev",
    version="v1alpha1",
    kind="VirtualMachine",
    plural="virtualmachines",
    short_names=("vm", "vms"),
    categories=("all", "carmel"),
    model=VirtualMachine,
    validate=validate,
    columns=(
        Column("Power", ".status.powerState"),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("CPUs", ".spec.cpu.count", "integer"),
        Column("Memory", ".spec.memory.size"),
        Column("Address", ".status.addresses[0]"),
        Column("Host", ".status.hostName", priority=1),
        Column("Policy", ".spec.cpu.policy", priority=1),
        Column("Nodes", ".status.placement.memoryNodes", priority=1),
        Column("Accelerator", ".status.accelerator", priority=1),
        Column("Machine", ".status.machineType", priority=1),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
