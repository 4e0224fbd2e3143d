"""Datastore: a place where images and volumes lie."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from carmel.errors import Cause
from carmel.resources.base import BY_NAME_SCHEMA, JsonObject, LocalReference, Model, Resource, Status
from carmel.resources.kinds import Column, Kind
from carmel.resources.nvmenamespace import NamespaceId, Serial
from carmel.resources.port import IpAddress

ExportName = Annotated[
    str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
]
"""The name of an export of an NBD server."""


class DatastoreType(StrEnum):
    """``Directory``: of the host. ``NVMe``: a file system on an NVMe namespace that nothing else uses. ``NBD``: disks
    that another machine exports, ``SmartNIC``: namespaces that a SmartNIC offers for VMs; each Volume on one of these
    is one of them, and a VM has a SmartNIC's as a function of its own."""

    DIRECTORY = "Directory"
    NVME = "NVMe"
    NBD = "NBD"
    SMART_NIC = "SmartNIC"


class DirectoryDatastore(Model):
    """A directory of the host. Without a path: one below the host's state directory."""

    path: str | None = Field(default=None, max_length=1024, pattern=r"^/[^\x00\n]*$")


class NVMeDatastore(Model):
    """A namespace that the host sees, of a drive of its own or of a SmartNIC: by its controller's serial number."""

    serial: Serial
    namespace_id: NamespaceId = Field(default=1, alias="namespaceID")


class NBDExport(Model):
    """A disk of an NBD server. A server may have a port for each."""

    name: ExportName
    port: int = Field(default=10809, ge=1, le=65535)


class NBDDatastore(Model):
    """NBD servers on one machine, spoken to with TLS only. ``exports``: the disks that Volumes may be."""

    address: IpAddress
    tls_secret_ref: LocalReference = Field(
        description="A Secret in carmel-system with the keys username and psk (hexadecimal): who we are to the server, "
        "and it to us.",
    )
    exports: list[NBDExport] = Field(min_length=1, max_length=256, json_schema_extra=BY_NAME_SCHEMA)
    stall_seconds: int = Field(
        default=600,
        ge=0,
        le=86400,
        description="How long a VM's reads and writes wait while the server is away; after it they fail.",
    )


class DatastoreSpec(Model):
    """Where it is. Only cluster-wide resources may name a path, a drive or an address of the host."""

    type: DatastoreType = DatastoreType.DIRECTORY
    directory: DirectoryDatastore = Field(default_factory=DirectoryDatastore)
    nvme: NVMeDatastore | None = None
    nbd: NBDDatastore | None = None
    smart_nic_ref: LocalReference | None = Field(default=None, alias="smartNICRef")


class DatastoreStatus(Status):
    """How large it is and what is left. Bytes. ``device``: the block device that it lies on."""

    capacity_bytes: int | None = None
    free_bytes: int | None = None
    device: str | None = None


class Datastore(Resource):
    """A datastore."""

    spec: DatastoreSpec = Field(default_factory=DatastoreSpec)
    status: DatastoreStatus = Field(default_factory=DatastoreStatus)


def _validate(new: JsonObject, old: JsonObject | None) -> list[Cause]:
    spec = new.get("spec") or {}
    causes = [*_type_causes(spec), *_export_causes((spec.get("nbd") or {}).get("exports") or [])]
    path = (spec.get("directory") or {}).get("path")
    if path is not None and ".." in path.split("/"):
        causes.append(Cause("spec.directory.path", "must not contain '..'"))
    if old is not None and _place(old.get("spec") or {}) != _place(spec):
        causes.append(Cause("spec", "a datastore cannot be moved: make another one", "FieldValueForbidden"))
    return causes


_OWN = {
    DatastoreType.DIRECTORY: "directory.path",
    DatastoreType.NVME: "nvme",
    DatastoreType.NBD: "nbd",
    DatastoreType.SMART_NIC: "smartNICRef",
}
"""The field that goes with a type, and with no other."""


def _type_causes(spec: JsonObject) -> list[Cause]:
    kind = DatastoreType(spec.get("type", DatastoreType.DIRECTORY))
    given = {name: spec.get(name) for name in _OWN.values()}
    given["directory.path"] = (spec.get("directory") or {}).get("path")
    own = _OWN[kind]
    causes = [
        Cause(f"spec.{name}", f"does not go with type {kind.value}", "FieldValueForbidden")
        for name, value in given.items()
        if name != own and value is not None
    ]
    if kind is not DatastoreType.DIRECTORY and given[own] is None:
        causes.append(Cause(f"spec.{own}", f"is required with type {kind.value}", "FieldValueRequired"))
    return causes


def _export_causes(exports: list[JsonObject]) -> list[Cause]:
    names = [one["name"] for one in exports]
    return [
        Cause(f"spec.nbd.exports[{index}].name", f"{name!r} stands here twice", "FieldValueDuplicate")
        for index, name in enumerate(names)
        if name in names[:index]
    ]


def _place(spec: JsonObject) -> JsonObject:
    """What may not change: all, but how a server of disks is reached and which of its disks may be had."""
    if spec.get("type") != DatastoreType.NBD:
        return spec
    return {"type": spec["type"]}


DATASTORE = Kind(
    group="carmel.dev",
    version="v1alpha1",
    kind="Datastore",
    plural="datastores",
    namespaced=False,
    short_names=("ds",),
    categories=("carmel",),
    model=Datastore,
    validate=_validate,
    columns=(
        Column("Type", ".spec.type"),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Capacity", ".status.capacityBytes", "integer"),
        Column("Free", ".status.freeBytes", "integer"),
        Column("Device", ".status.device", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
