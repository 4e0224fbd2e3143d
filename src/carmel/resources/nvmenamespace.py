"""NVMeNamespace: a disk that a SmartNIC shows its host as an NVMe namespace, and where its blocks come from.

It lies in the NIC's own store and is its administrators' alone. The host reads of it only what the NIC's SmartNIC
status tells (name, size, state), and may say which of its functions shows it. Words are those of NVM Express and of
OPI's API (NvmeRemoteController, NvmePath, NvmeNamespace; limits stand at a namespace here, where a guest feels them).
"""

from __future__ import annotations

import ipaddress
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from carmel.errors import Cause
from carmel.resources.base import JsonObject, LocalReference, Model, Name, Resource, Status
from carmel.resources.kinds import Column, Kind
from carmel.resources.port import IpAddress

NQN_BYTES = 223
"""NVM Express Base Specification 2.0, 4.5: a qualified name has at most 223 bytes."""


def _no_option(value: str) -> str:
    """The kernel takes options with commas between them (drivers/nvme/host/fabrics.c): none may hide in a name."""
    if "," in value or any(ord(char) < 0x21 or ord(char) > 0x7E for char in value):
        raise ValueError("has letters that an NVMe qualified name cannot have")
    return value


Nqn = Annotated[
    str,
    StringConstraints(min_length=11, max_length=NQN_BYTES, pattern=r"^nqn\.[0-9]{4}-[0-9]{2}\.[^,]+$"),
    AfterValidator(_no_option),
]
"""An NVMe qualified name, such as nqn.2014-08.org.nvmexpress:uuid:..."""
NamespaceId = Annotated[int, Field(ge=1, le=0xFFFFFFFE)]
"""NVM Express Base Specification 2.0, 3.2.1: 0 and FFFFFFFFh name none."""
Serial = Annotated[str, StringConstraints(min_length=1, max_length=20, pattern=r"^[!-~]([ -~]*[!-~])?$")]
"""A controller's serial number: 20 bytes of ASCII (NVM Express Base Specification 2.0, Identify Controller)."""


class RemoteSource(Model):
    """A namespace of an NVMe over TCP target, reached by the kernel of the NIC."""

    address: IpAddress
    port: int = Field(default=4420, ge=1, le=65535)
    subsystem_nqn: Nqn = Field(alias="subsystemNQN")
    host_nqn: Nqn | None = Field(
        default=None, alias="hostNQN", description="What the target knows the NIC by; derived from the NIC when absent."
    )
    namespace_id: NamespaceId = Field(default=1, alias="namespaceID")
    auth_secret_ref: LocalReference | None = Field(
        default=None,
        description="A Secret in carmel-system with the key dhchap (DHHC-1:...): the NIC proves who it is. Its key "
        "dhchapController has the target prove itself, too.",
    )


class DiskSource(Model):
    """A namespace of an NVMe drive that the NIC itself has."""

    serial: Serial
    namespace_id: NamespaceId = Field(default=1, alias="namespaceID")


class NVMeSource(Model):
    """Where the blocks come from: exactly one of these."""

    remote: RemoteSource | None = None
    disk: DiskSource | None = None


class NVMeLimits(Model):
    """What goes through at most. 1 MB is 1,000,000 bytes."""

    iops: int | None = Field(default=None, ge=1, le=100_000_000, description="Reads and writes together, a second.")
    read_mbps: int | None = Field(default=None, alias="readMBps", ge=1, le=1_000_000)
    write_mbps: int | None = Field(default=None, alias="writeMBps", ge=1, le=1_000_000)


class NVMeOwner(Model):
    """The VM that may have it, by its names on the host."""

    namespace: Name
    name: Name


class ImageReference(Model):
    """An Image, from where no namespace is."""

    namespace: Name = "default"
    name: Name


class NVMeNamespaceSpec(Model):
    """``function``: the NIC's NVMe function that shows it. Its administrators set it, or the host binds it."""

    source: NVMeSource
    image_ref: ImageReference | None = Field(
        default=None,
        description="An Image of this SmartNIC's, of type Disk, that it begins with: copied onto it once, if it is "
        "empty, before any function shows it.",
    )
    owner: NVMeOwner | None = Field(default=None, description="The VM that may have it; the host itself when absent.")
    function: str | None = Field(default=None, max_length=63, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
    limits: NVMeLimits | None = None
    stall_seconds: int = Field(
        default=600,
        ge=0,
        le=86400,
        description="How long reads and writes wait while the path to the blocks is away; after it they fail.",
    )


class NVMeNamespaceState(StrEnum):
    """``Connecting``: never reached so far. ``Filling``: its Image is being copied onto it. ``Online``: it can be read
    and written. ``Stalled``: the path is away, what is asked for waits. ``Failed``: it was away for longer than
    ``stallSeconds``, or cannot be; see ``message``."""

    CONNECTING = "Connecting"
    FILLING = "Filling"
    ONLINE = "Online"
    STALLED = "Stalled"
    FAILED = "Failed"


class NVMeContent(Model):
    """The Image that it began with. ``complete``: all of it is there; else the copy goes on, from the beginning."""

    image_uid: str = Field(alias="imageUID")
    digest: str | None = Field(default=None, description="Of the image's bytes as they came.")
    complete: bool = False


class NVMeNamespaceStatus(Status):
    """``device``: the NIC's block device. ``function``: the one that shows it now."""

    state: NVMeNamespaceState | None = None
    size_bytes: int | None = None
    block_bytes: int | None = None
    device: str | None = None
    function: str | None = None
    content: NVMeContent | None = None


class NVMeNamespace(Resource):
    """An NVMe namespace."""

    spec: NVMeNamespaceSpec
    status: NVMeNamespaceStatus = Field(default_factory=NVMeNamespaceStatus)


def _validate(new: JsonObject, old: JsonObject | None) -> list[Cause]:
    source = new["spec"]["source"]
    if len(source) != 1:
        return [Cause("spec.source", "needs exactly one of remote and disk", "FieldValueRequired")]
    remote = source.get("remote")
    if remote is not None and ipaddress.ip_address(remote["address"]).is_unspecified:
        return [Cause("spec.source.remote.address", "names no machine")]
    if old is not None and old["spec"]["source"] != source:
        # A guest would find other data under the disk that it has open.
        return [Cause("spec.source", "cannot be changed: make another namespace", "FieldValueForbidden")]
    image = new["spec"].get("imageRef")
    if old is not None and image is not None and old["spec"].get("imageRef") != image:
        # It is what a namespace begins with, and this one has begun.
        return [Cause("spec.imageRef", "cannot be changed: make another namespace", "FieldValueForbidden")]
    return []


NVME_NAMESPACE = Kind(
    group="carmel.dev",
    version="v1alpha1",
    kind="NVMeNamespace",
    plural="nvmenamespaces",
    namespaced=False,
    short_names=("nvns",),
    categories=("carmel",),
    model=NVMeNamespace,
    validate=_validate,
    columns=(
        Column("State", ".status.state"),
        Column("Size", ".status.sizeBytes", "integer"),
        Column("Function", ".status.function"),
        Column("Owner", ".spec.owner.name"),
        Column("Address", ".spec.source.remote.address", priority=1),
        Column("Disk", ".spec.source.disk.serial", priority=1),
        Column("Image", ".spec.imageRef.name", priority=1),
        Column("Device", ".status.device", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
