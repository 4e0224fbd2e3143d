"""Datastore: a place where images and volumes lie."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from carmel.errors import Cause
from carmel.resources.base import JsonObject, Model, Resource, Status
from carmel.resources.kinds import Column, Kind


class DatastoreType(StrEnum):
    DIRECTORY = "Directory"


class DirectoryDatastore(Model):
    """A directory of the host. Without a path: one below the host's state directory."""

    path: str | None = Field(default=None, max_length=1024, pattern=r"^/[^\x00\n]*$")


class DatastoreSpec(Model):
    """Where it is. Only cluster-wide resources may name a path of the host."""

    type: DatastoreType = DatastoreType.DIRECTORY
    directory: DirectoryDatastore = Field(default_factory=DirectoryDatastore)


class DatastoreStatus(Status):
    """How large it is and what is left. Bytes."""

    capacity_bytes: int | None = None
    free_bytes: int | None = None


class Datastore(Resource):
    """A datastore."""

    spec: DatastoreSpec = Field(default_factory=DatastoreSpec)
    status: DatastoreStatus = Field(default_factory=DatastoreStatus)


def _validate(new: JsonObject, old: JsonObject | None) -> list[Cause]:
    path = (((new.get("spec") or {}).get("directory")) or {}).get("path")
    causes = []
    if path is not None and ".." in path.split("/"):
        causes.append(Cause("spec.directory.path", "must not contain '..'"))
    if old is not None and old.get("spec") != new.get("spec"):
        causes.append(Cause("spec", "a datastore cannot be moved: make another one", "FieldValueForbidden"))
    return causes


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
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
