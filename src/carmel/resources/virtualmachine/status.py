"""What a VM is."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from carmel.resources.base import BY_NAME_SCHEMA, Model, Status, Time
from carmel.resources.port import DataPlane
from carmel.resources.virtualmachine.compute import CpuPolicy
from carmel.resources.virtualmachine.devices import Protocol
from carmel.resources.virtualmachine.spec import PowerState


class TerminationReason(StrEnum):
    """How a VM ended."""

    GUEST_SHUTDOWN = "GuestShutdown"
    GUEST_RESET = "GuestReset"
    GUEST_PANIC = "GuestPanic"
    HOST_REQUEST = "HostRequest"
    QEMU_FAILED = "QEMUFailed"
    HOST_REBOOT = "HostReboot"
    UNKNOWN = "Unknown"


class Termination(Model):
    """The end of a VM's last run."""

    reason: TerminationReason
    message: str = ""
    exit_code: int | None = None
    signal: int | None = None
    launch_id: str | None = Field(default=None, alias="launchID")
    started_at: Time | None = None
    finished_at: Time | None = None


class ForwardStatus(Model):
    """A forward as it is: with the port that the host chose."""

    name: str | None = None
    protocol: Protocol = Protocol.TCP
    guest_port: int
    host_address: str
    host_port: int


class NetworkInterfaceStatus(Model):
    name: str
    network_name: str | None = None
    mac: str
    addresses: list[str] | None = None
    forwards: list[ForwardStatus] | None = None
    data_plane: DataPlane | None = Field(
        default=None, description="Whose its frames are on this host: its kernel's, or a SmartNIC's, passed through."
    )
    function: str | None = Field(
        default=None,
        description="The SmartNIC's function that it is or, with dataPlane Host, that the kernel joins it to.",
    )


class DiskStatus(Model):
    name: str
    volume_name: str
    capacity_bytes: int | None = None


class GuestStatus(Model):
    """What the guest agent says of itself."""

    host_name: str | None = None
    os_name: str | None = None
    kernel: str | None = None
    agent_version: str | None = None


class VcpuPlacement(Model):
    """A vCPU and the host CPUs that it may run on (``0-39,80``)."""

    id: int
    host_cpus: str


class GuestNodePlacement(Model):
    """A NUMA node of the guest, and the host's node that backs it."""

    id: int
    vcpus: str
    memory_bytes: int
    host_node: int


class PlacementStatus(Model):
    """Where the VM is on its host, and why. ``memory_nodes`` are the host's; ``next_best`` says where else it would
    have fitted best."""

    policy: CpuPolicy
    vcpus: list[VcpuPlacement]
    memory_nodes: list[int]
    page_size_bytes: int
    emulator_cpus: str | None = None
    guest_nodes: list[GuestNodePlacement] | None = None
    reasons: list[str]
    next_best: str | None = None


class VirtualMachineStatus(Status):
    """What a VM is. ``addresses`` are the guest's, where it or its network tells them."""

    power_state: PowerState | None = None
    host_name: str | None = None
    addresses: list[str] | None = None
    machine_type: str | None = None
    accelerator: str | None = None
    cpu_model: str | None = None
    launch_id: str | None = Field(default=None, alias="launchID")
    started_at: Time | None = None
    restarted_at: Time | None = None
    restart_count: int | None = None
    last_termination: Termination | None = None
    bios_uuid: str | None = Field(default=None, alias="biosUUID")
    instance_uuid: str | None = Field(default=None, alias="instanceUUID")
    networks: list[NetworkInterfaceStatus] | None = Field(default=None, json_schema_extra=BY_NAME_SCHEMA)
    disks: list[DiskStatus] | None = Field(default=None, json_schema_extra=BY_NAME_SCHEMA)
    guest: GuestStatus | None = None
    placement: PlacementStatus | None = None
