"""Volume: a disk that belongs to a VM or waits for one."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, field_validator

from carmel.errors import Cause
from carmel.resources.base import JsonObject, LocalReference, Model, Resource, Size, Status, StatusError
from carmel.resources.datastore import ExportName
from carmel.resources.kinds import Column, Kind
from carmel.units import MIB, TIB, parse_bytes


class VolumePhase(StrEnum):
    PENDING = "Pending"
    CREATING = "Creating"
    READY = "Ready"
    RESIZING = "Resizing"
    FAILED = "Failed"
    DELETING = "Deleting"


class VolumeSpec(Model):
    """What disk is wanted. It may grow later, never shrink; the rest stays as it was made."""

    size: Size | None = Field(default=None, description="Capacity; by default the image's own.")
    image_ref: LocalReference | None = Field(
        default=None, description="The Image it starts as a copy of; empty without."
    )
    datastore_ref: LocalReference = Field(default_factory=lambda: LocalReference(name="local"))
    export: ExportName | None = Field(
        default=None,
        description="On a datastore of type NBD the export, of type SmartNIC the NVMe namespace that it is, as it is. "
        "No other Volume can be the same.",
    )

    @field_validator("size")
    @classmethod
    def _in_range(cls, value: str | None) -> str | None:
        if value is not None and not MIB <= parse_bytes(value) <= 64 * TIB:
            raise ValueError("must be between 1Mi and 64Ti")
        return value


class VolumeStatus(Status):
    """What a volume is. ``used_by`` is the VM that it is attached to."""

    phase: VolumePhase | None = None
    capacity_bytes: int | None = None
    allocated_bytes: int | None = None
    format: str | None = None
    image_uid: str | None = Field(
        default=None, alias="imageUID", description="The image that backs it: kept while it does."
    )
    used_by: str | None = None
    error: StatusError | None = None


class Volume(Resource):
    """A volume."""

    spec: VolumeSpec = Field(default_factory=VolumeSpec)
    status: VolumeStatus = Field(default_factory=VolumeStatus)


def _validate(new: JsonObject, old: JsonObject | None) -> list[Cause]:
    spec = new.get("spec") or {}
    causes = []
    if spec.get("export") is not None:
        causes += [
            Cause(f"spec.{name}", "does not go with export: it is taken as it is", "FieldValueForbidden")
            for name in ("size", "imageRef")
            if spec.get(name) is not None
        ]
    elif spec.get("size") is None and spec.get("imageRef") is None:
        causes.append(Cause("spec.size", "is required for a volume without an image", "FieldValueRequired"))
    if old is not None:
        before = old.get("spec") or {}
        causes += [
            Cause(f"spec.{name}", "cannot be changed", "FieldValueForbidden")
            for name in ("imageRef", "datastoreRef", "export")
            if before.get(name) != spec.get(name)
        ]
        if before.get("size") and (not spec.get("size") or parse_bytes(spec["size"]) < parse_bytes(before["size"])):
            causes.append(Cause("spec.size", f"a volume cannot shrink below {before['size']}", "FieldValueForbidden"))
    return causes


VOLUME = Kind(
    group="carmel.dev",
    version="v1alpha1",
    kind="Volume",
    plural="volumes",
    short_names=("vol",),
    categories=("carmel",),
    model=Volume,
    validate=_validate,
    columns=(
        Column("Phase", ".status.phase"),
        Column("Capacity", ".status.capacityBytes", "integer"),
        Column("Used By", ".status.usedBy"),
        Column("Image", ".spec.imageRef.name", priority=1),
        Column("Datastore", ".spec.datastoreRef.name", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
