"""VirtualMachine: vCPUs, memory, firmware, disks, NICs and the power state that is wanted."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints, field_validator, model_validator

from carmel.errors import Cause
from carmel.resources.base import (
    BY_NAME_SCHEMA,
    JsonObject,
    LocalReference,
    Model,
    Name,
    Resource,
    SecretKeyReference,
    Size,
    Status,
    Time,
)
from carmel.resources.kinds import Column, Kind
from carmel.units import MIB, TIB, parse_bytes

Mac = Annotated[str, StringConstraints(to_lower=True, pattern=r"^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$")]
Uuid = Annotated[str, StringConstraints(to_lower=True, pattern=r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$")]

MAX_VCPUS = 512
"""QEMU's ``virt`` machine: at most 512 CPUs with a GICv3 (hw/arm/virt.c, ``max_cpus``)."""
MIN_MEMORY = 16 * MIB
MAX_MEMORY = 255 * TIB


class FirmwareType(StrEnum):
    UEFI = "UEFI"
    DIRECT_KERNEL = "DirectKernel"


class PowerState(StrEnum):
    ON = "PoweredOn"
    OFF = "PoweredOff"
    PAUSED = "Paused"
    SUSPENDED = "Suspended"


class PowerOffMode(StrEnum):
    """How to go to PoweredOff: ask the guest, pull the plug, or ask and then pull."""

    SOFT = "Soft"
    HARD = "Hard"
    TRY_SOFT = "TrySoft"


class RestartPolicy(StrEnum):
    """What to do when a VM ends that should run: a guest that shut itself down is a success."""

    ALWAYS = "Always"
    ON_FAILURE = "OnFailure"
    NEVER = "Never"


class DiskBus(StrEnum):
    VIRTIO = "virtio"
    NVME = "nvme"
    SCSI = "scsi"
    USB = "usb"


class DeletePolicy(StrEnum):
    """What becomes of a disk's volume when its VM is deleted."""

    DELETE = "Delete"
    RETAIN = "Retain"


class Protocol(StrEnum):
    TCP = "TCP"
    UDP = "UDP"


class CpuTopology(Model):
    """The guest's sockets, clusters, cores and threads. Their product is ``cpu.count``."""

    sockets: int = Field(default=1, ge=1, le=MAX_VCPUS, description="CPU packages.")
    clusters: int = Field(default=1, ge=1, le=MAX_VCPUS, description="Clusters in each socket.")
    cores: int = Field(default=1, ge=1, le=MAX_VCPUS, description="Cores in each cluster.")
    threads: int = Field(default=1, ge=1, le=MAX_VCPUS, description="Threads of each core.")


class Cpu(Model):
    """vCPUs. ``model`` is a QEMU CPU model; by default the host's own under KVM, a fast one when emulated."""

    count: int = Field(default=1, ge=1, le=MAX_VCPUS, description="How many vCPUs.")
    model: str | None = Field(
        default=None,
        max_length=63,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="QEMU's name of a CPU model, such as cortex-a72 or neoverse-n1. Only when emulated.",
    )
    topology: CpuTopology | None = None


class Memory(Model):
    """Guest memory."""

    size: Size = Field(default="1Gi", description="How much, such as 512Mi or 2Gi. A whole number of MiB.")

    @field_validator("size")
    @classmethod
    def _in_range(cls, value: str) -> str:
        size = parse_bytes(value)
        if size < MIN_MEMORY or size > MAX_MEMORY:
            raise ValueError(f"must be between {MIN_MEMORY // MIB}Mi and {MAX_MEMORY // TIB}Ti")
        if size % MIB:
            raise ValueError("must be a whole number of MiB")
        return value


class Firmware(Model):
    """What the guest starts from: UEFI and a disk, or a kernel and initrd out of an Image of type Kernel."""

    type: FirmwareType = Field(default=FirmwareType.UEFI, description="UEFI boots a disk, DirectKernel a kernel Image.")
    image_ref: LocalReference | None = Field(default=None, description="DirectKernel: the Image that holds the kernel.")
    command_line: str | None = Field(
        default=None,
        max_length=2048,
        description="DirectKernel: what is added to the kernel command line that the Image brings.",
    )


class Disk(Model):
    """One disk: an existing Volume, or one made for this VM from an Image or empty."""

    name: Name = Field(description="Names the disk in this VM; a volume made for it is called VM-NAME.")
    bus: DiskBus = Field(default=DiskBus.VIRTIO, description="What the guest sees it as. nvme hinders live migration.")
    volume_ref: LocalReference | None = Field(default=None, description="A Volume that exists, of the same namespace.")
    image_ref: LocalReference | None = Field(default=None, description="An Image that the new disk is a copy of.")
    size: Size | None = Field(default=None, description="Capacity. Larger than the image's: the disk is grown.")
    delete_policy: DeletePolicy | None = Field(
        default=None, description="Delete for a volume made for this VM, Retain for one named by volumeRef."
    )

    @field_validator("size")
    @classmethod
    def _in_range(cls, value: str | None) -> str | None:
        if value is not None and not MIB <= parse_bytes(value) <= 64 * TIB:
            raise ValueError("must be between 1Mi and 64Ti")
        return value


class Forward(Model):
    """A port of the host that leads to a port of the guest (provider ``user`` only)."""

    name: Name | None = Field(default=None, description="For people: what the port is for.")
    protocol: Protocol = Field(default=Protocol.TCP, description="TCP or UDP.")
    guest_port: int = Field(ge=1, le=65535, description="The port in the guest.")
    host_port: int | None = Field(default=None, ge=1, le=65535, description="Chosen by the host when absent.")
    host_address: str = Field(
        default="127.0.0.1",
        pattern=r"^[0-9.]{7,15}$",
        description="The host's address that listens. 0.0.0.0 opens the port to others.",
    )


class NetworkInterface(Model):
    """One NIC on a Network. Its MAC is derived from the VM's uid unless given, so that it is stable."""

    name: Name = Field(description="Names the NIC in this VM.")
    network_ref: LocalReference = Field(
        default_factory=lambda: LocalReference(name="default"), description="The Network it is plugged into."
    )
    mac: Mac | None = Field(default=None, description="Its MAC address; derived from the VM's uid when absent.")
    forwards: list[Forward] | None = Field(
        default=None, max_length=64, description="Ports of the host that lead to the guest."
    )

    @field_validator("mac")
    @classmethod
    def _unicast(cls, value: str | None) -> str | None:
        if value is not None and int(value[:2], 16) & 1:
            raise ValueError("must be a unicast address: the first byte is even")
        return value


_INLINE_SECRETS = ("userData", "user_data", "userdata", "networkData", "password", "chpasswd")


class CloudInit(Model):
    """First-boot configuration (NoCloud). User data lies in a Secret: it often holds passwords and keys."""

    user_data_secret_ref: SecretKeyReference | None = Field(default=None, description="The Secret with the user data.")
    network_data_secret_ref: SecretKeyReference | None = Field(
        default=None, description="The Secret with a network configuration (version 2); DHCP without."
    )
    ssh_authorized_keys: list[Annotated[str, StringConstraints(max_length=16384)]] | None = Field(
        default=None, max_length=64, description="Public keys that the image's default user is given."
    )
    host_name: str | None = Field(
        default=None,
        max_length=63,
        pattern=r"^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?$",
        description="The guest's host name; the VM's name when absent.",
    )

    @model_validator(mode="before")
    @classmethod
    def _no_inline_secrets(cls, value: Any) -> Any:
        if isinstance(value, dict):
            for key in _INLINE_SECRETS:
                if key in value:
                    raise ValueError(
                        f"{key} may not stand in a spec, which everyone who can read VMs can read: "
                        "put it into a Secret and name that in userDataSecretRef"
                    )
        return value


class VirtualMachineSpec(Model):
    """What is wanted of a VM."""

    cpu: Cpu = Field(default_factory=Cpu)
    memory: Memory = Field(default_factory=Memory)
    firmware: Firmware = Field(default_factory=Firmware)
    power_state: PowerState = Field(default=PowerState.ON, description="The state that is wanted.")
    power_off_mode: PowerOffMode = PowerOffMode.TRY_SOFT
    power_off_timeout_seconds: int = Field(
        default=60, ge=1, le=3600, description="TrySoft: how long the guest is given before the plug is pulled."
    )
    restart_requested_at: Time | None = Field(
        default=None, description="A time later than status.restartedAt restarts the VM once, or starts one that ended."
    )
    restart_policy: RestartPolicy = RestartPolicy.ON_FAILURE
    start_at_boot: bool = Field(default=True, description="Start this VM when its host starts, if it should run.")
    disks: list[Disk] = Field(
        default_factory=list, max_length=24, json_schema_extra=BY_NAME_SCHEMA, description="In boot order."
    )
    networks: list[NetworkInterface] = Field(
        default_factory=list, max_length=8, json_schema_extra=BY_NAME_SCHEMA, description="NICs; none without."
    )
    cloud_init: CloudInit | None = None
    bios_uuid: Uuid | None = Field(
        default=None, alias="biosUUID", description="SMBIOS UUID that the guest sees; the VM's uid when absent."
    )
    instance_uuid: Uuid | None = Field(
        default=None, alias="instanceUUID", description="An identity that others keep for this VM; its uid when absent."
    )


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


class VirtualMachine(Resource):
    """A virtual machine."""

    spec: VirtualMachineSpec = Field(default_factory=VirtualMachineSpec)
    status: VirtualMachineStatus = Field(default_factory=VirtualMachineStatus)


def _validate(new: JsonObject, _old: JsonObject | None) -> list[Cause]:
    spec = VirtualMachineSpec.model_validate(new.get("spec") or {})
    return [
        *_cpu_causes(spec.cpu),
        *_firmware_causes(spec),
        *_unique_names("spec.disks", [disk.name for disk in spec.disks]),
        *_unique_names("spec.networks", [nic.name for nic in spec.networks]),
        *_disk_causes(spec),
        *_forward_causes(spec),
    ]


def _cpu_causes(cpu: Cpu) -> list[Cause]:
    shape = cpu.topology
    if shape is None:
        return []
    product = shape.sockets * shape.clusters * shape.cores * shape.threads
    if product == cpu.count:
        return []
    return [
        Cause(
            "spec.cpu.topology",
            f"sockets x clusters x cores x threads is {product}, but spec.cpu.count is {cpu.count}",
        )
    ]


def _firmware_causes(spec: VirtualMachineSpec) -> list[Cause]:
    firmware = spec.firmware
    direct = firmware.type is FirmwareType.DIRECT_KERNEL
    causes = []
    if direct and firmware.image_ref is None:
        causes.append(
            Cause("spec.firmware.imageRef", "is required: DirectKernel boots a kernel Image", "FieldValueRequired")
        )
    for name, value in (("imageRef", firmware.image_ref), ("commandLine", firmware.command_line)):
        if not direct and value is not None:
            causes.append(
                Cause(f"spec.firmware.{name}", "may only be set with type DirectKernel", "FieldValueForbidden")
            )
    if firmware.command_line and re.search(r"[^\x20-\x7e]", firmware.command_line):
        causes.append(Cause("spec.firmware.commandLine", "must be printable ASCII on one line"))
    return causes


def _unique_names(field: str, names: list[str]) -> list[Cause]:
    return [
        Cause(f"{field}[{index}].name", f"{name!r} stands here twice", "FieldValueDuplicate")
        for index, name in enumerate(names)
        if name in names[:index]
    ]


def _disk_causes(spec: VirtualMachineSpec) -> list[Cause]:
    causes = []
    volumes: list[str] = []
    for index, disk in enumerate(spec.disks):
        field = f"spec.disks[{index}]"
        if disk.volume_ref is not None and (disk.image_ref is not None or disk.size is not None):
            causes.append(
                Cause(
                    field,
                    "volumeRef names a disk that exists: imageRef and size do not go with it",
                    "FieldValueForbidden",
                )
            )
        if disk.volume_ref is None and disk.image_ref is None and disk.size is None:
            causes.append(Cause(field, "needs one of volumeRef, imageRef or size", "FieldValueRequired"))
        if disk.volume_ref is not None:
            if disk.volume_ref.name in volumes:
                causes.append(Cause(f"{field}.volumeRef.name", "is attached twice", "FieldValueDuplicate"))
            volumes.append(disk.volume_ref.name)
    return causes


def _forward_causes(spec: VirtualMachineSpec) -> list[Cause]:
    causes = []
    taken: set[tuple[str, Protocol, int]] = set()
    for nic_index, nic in enumerate(spec.networks):
        for index, forward in enumerate(nic.forwards or []):
            field = f"spec.networks[{nic_index}].forwards[{index}]"
            octets = [int(part) for part in forward.host_address.split(".") if part]
            if len(octets) != 4 or any(octet > 255 for octet in octets):
                causes.append(Cause(f"{field}.hostAddress", "is not an IPv4 address"))
            if forward.host_port is None:
                continue
            key = (forward.host_address, forward.protocol, forward.host_port)
            if key in taken:
                causes.append(Cause(f"{field}.hostPort", "is forwarded twice", "FieldValueDuplicate"))
            taken.add(key)
    return causes


VIRTUAL_MACHINE = Kind(
    group="carmel.dev",
    version="v1alpha1",
    kind="VirtualMachine",
    plural="virtualmachines",
    short_names=("vm", "vms"),
    categories=("all", "carmel"),
    model=VirtualMachine,
    validate=_validate,
    columns=(
        Column("Power", ".status.powerState"),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("CPUs", ".spec.cpu.count", "integer"),
        Column("Memory", ".spec.memory.size"),
        Column("Address", ".status.addresses[0]"),
        Column("Host", ".status.hostName", priority=1),
        Column("Accelerator", ".status.accelerator", priority=1),
        Column("Machine", ".status.machineType", priority=1),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
