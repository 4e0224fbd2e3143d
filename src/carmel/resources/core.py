"""The core/v1 kinds that people's tools expect: Namespace, Secret and Event, in Kubernetes' own shape."""

from __future__ import annotations

import base64
import binascii

from pydantic import Field

from carmel.errors import Cause
from carmel.resources.base import JsonObject, MicroTime, Model, ObjectMeta, Resource, Time
from carmel.resources.kinds import Column, Kind

MAX_SECRET_BYTES = 192 * 1024
"""Secrets are small. (No object may be larger than 256 KiB.)"""


class NamespaceSpec(Model):
    """``finalizers`` holds ``kubernetes`` until all that was in the namespace is gone."""

    finalizers: list[str] | None = None


class NamespaceStatus(Model):
    phase: str | None = None


class Namespace(Resource):
    """A namespace."""

    spec: NamespaceSpec = Field(default_factory=NamespaceSpec)
    status: NamespaceStatus = Field(default_factory=NamespaceStatus)


class Secret(Resource):
    """A secret. ``data`` is base64; ``stringData`` is written only and becomes ``data``."""

    type: str = "Opaque"
    immutable: bool | None = None
    data: dict[str, str] | None = None
    string_data: dict[str, str] | None = None


class ObjectReference(Model):
    """What an event is about."""

    api_version: str | None = None
    kind: str | None = None
    name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    field_path: str | None = None


class EventSource(Model):
    component: str | None = None
    host: str | None = None


class Event(Resource):
    """Something that happened to a resource."""

    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    involved_object: ObjectReference = Field(default_factory=ObjectReference)
    reason: str | None = None
    message: str | None = None
    source: EventSource | None = None
    first_timestamp: Time | None = None
    last_timestamp: Time | None = None
    event_time: MicroTime | None = None
    count: int | None = None
    type: str | None = None
    action: str | None = None
    reporting_component: str | None = None
    reporting_instance: str | None = None


def _validate_secret(new: JsonObject, old: JsonObject | None) -> list[Cause]:
    causes = []
    total = 0
    for key, value in (new.get("data") or {}).items():
        try:
            total += len(base64.b64decode(value, validate=True))
        except (binascii.Error, ValueError):
            causes.append(Cause(f"data[{key}]", "is not base64"))
    if total > MAX_SECRET_BYTES:
        causes.append(Cause("data", f"is larger than {MAX_SECRET_BYTES} bytes", "FieldValueTooLong"))
    if old is not None and old.get("immutable") and old.get("data") != new.get("data"):
        causes.append(Cause("data", "this secret is immutable", "FieldValueForbidden"))
    if old is not None and old.get("type", "Opaque") != new.get("type", "Opaque"):
        causes.append(Cause("type", "cannot be changed", "FieldValueInvalid"))
    return causes


def merge_string_data(secret: JsonObject) -> JsonObject:
    """The secret with ``stringData`` encoded into ``data``, as every write does it."""
    plain = secret.get("stringData")
    if not isinstance(plain, dict):
        return secret
    encoded = {key: base64.b64encode(str(value).encode()).decode() for key, value in plain.items()}
    rest = {key: value for key, value in secret.items() if key != "stringData"}
    return {**rest, "data": {**(secret.get("data") or {}), **encoded}}


NAMESPACE = Kind(
    group="",
    version="v1",
    kind="Namespace",
    plural="namespaces",
    namespaced=False,
    short_names=("ns",),
    model=Namespace,
    columns=(Column("Status", ".status.phase"), Column("Age", ".metadata.creationTimestamp", "date")),
)

SECRET = Kind(
    group="",
    version="v1",
    kind="Secret",
    plural="secrets",
    model=Secret,
    validate=_validate_secret,
    has_status=False,
    columns=(Column("Type", ".type"), Column("Age", ".metadata.creationTimestamp", "date")),
    selectable_fields=("type",),
)

EVENT = Kind(
    group="",
    version="v1",
    kind="Event",
    plural="events",
    short_names=("ev",),
    model=Event,
    has_status=False,
    columns=(
        Column("Last Seen", ".lastTimestamp", "date"),
        Column("Type", ".type"),
        Column("Reason", ".reason"),
        Column("Kind", ".involvedObject.kind"),
        Column("Object", ".involvedObject.name"),
        Column("Message", ".message"),
    ),
    selectable_fields=(
        "involvedObject.kind",
        "involvedObject.name",
        "involvedObject.namespace",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "type",
        "reportingComponent",
    ),
)
