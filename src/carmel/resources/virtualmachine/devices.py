"""Disks, NICs and firmware of a VM, and how cloud-init sets up its guest."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, StringConstraints, field_validator, model_validator

from carmel.resources.base import LocalReference, Mac, Model, Name, SecretKeyReference, Size
from carmel.resources.port import DataPlane, IpAddress, PortLimits, VlanId
from carmel.units import MIB, TIB, parse_bytes


class FirmwareType(StrEnum):
    UEFI = "UEFI"
    DIRECT_KERNEL = "DirectKernel"


class DiskBus(StrEnum):
    VIRTIO = "virtio"
    NVME = "nvme"
    SCSI = "scsi"
    USB = "usb"


class DiskCache(StrEnum):
    """Whether what a guest reads and writes goes through the host's page cache. Flushes reach the drive either way."""

    NONE = "None"
    WRITE_BACK = "WriteBack"


class DeletePolicy(StrEnum):
    """What becomes of a disk's volume when its VM is deleted."""

    DELETE = "Delete"
    RETAIN = "Retain"


class Protocol(StrEnum):
    TCP = "TCP"
    UDP = "UDP"


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
    cache: DiskCache | None = Field(
        default=None,
        description="The host's page cache, for a disk in a file. None: past it; refused where the file system cannot. "
        "WriteBack: through it. When absent None where the file system can.",
    )
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
    vlan: VlanId | None = Field(
        default=None, description="bridge: untagged frames belong to this VLAN; the Network's when absent."
    )
    trunk: list[VlanId] | None = Field(
        default=None, max_length=4094, description="bridge: VLANs that pass tagged, as well."
    )
    addresses: list[IpAddress] | None = Field(
        default=None,
        max_length=64,
        description="IP addresses that the NIC may send from. nat: the one that DHCP gives; chosen when absent.",
    )
    source_guard: bool | None = Field(
        default=None, description="Drop frames with another source MAC or IP address than the NIC's. True when absent."
    )
    limits: PortLimits | None = Field(default=None, description="How fast the VM may receive and send.")
    mirror_to: LocalReference | None = Field(
        default=None, description="A Port of the same Network that gets a copy of each frame, both ways."
    )
    queues: int | None = Field(
        default=None, ge=1, le=16, description="Pairs of queues; one a vCPU, at most 4, when absent."
    )
    data_plane: DataPlane | None = Field(
        default=None,
        description="As the Network says when absent. Host on a network that a SmartNIC switches: the host's kernel "
        "carries the frames between the VM, which stays movable, and its function.",
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
