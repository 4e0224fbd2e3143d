"""What every resource has: the shape of a Kubernetes object (API conventions, "Objects").

Models are pydantic at this edge only. Python names are snake_case, JSON names are Kubernetes' camelCase. Unknown
fields are dropped here; that they are reported first (``fieldValidation``) is the work of ``schema``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, StringConstraints, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from carmel.units import parse_bytes

JsonObject = dict[str, Any]
"""A resource as JSON: what goes over the wire and into the store."""

DNS_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
DNS_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"


class Model(BaseModel):
    """A part of a resource."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        validate_default=False,
        use_enum_values=False,
        ser_json_timedelta="iso8601",
    )

    def to_json(self) -> JsonObject:
        """As the API shows it: camelCase, absent rather than null."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def _parse_time(value: object) -> object:
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            raise ValueError("must be a time as in RFC 3339, for example 2026-11-23T10:00:00Z") from None
    return value


def _aware(value: object) -> object:
    parsed = _parse_time(value)
    if isinstance(parsed, datetime) and parsed.tzinfo is None:
        return parsed.replace(tzinfo=UTC)
    return parsed


def format_time(value: datetime) -> str:
    """RFC 3339 in UTC with whole seconds, as Kubernetes writes ``metav1.Time``."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_micro_time(value: datetime) -> str:
    """RFC 3339 with microseconds, as Kubernetes writes ``metav1.MicroTime``."""
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


Time = Annotated[
    datetime,
    BeforeValidator(_aware),
    PlainSerializer(format_time, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
MicroTime = Annotated[
    datetime,
    BeforeValidator(_aware),
    PlainSerializer(format_micro_time, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]


def _quantity(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a size, for example 512Mi or 2Gi")
    parse_bytes(value)
    return str(value)


Size = Annotated[
    str,
    BeforeValidator(_quantity),
    WithJsonSchema({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
]
"""A number of bytes as a Kubernetes quantity; ``units.parse_bytes`` gives the number."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=rf"^{DNS_LABEL}$")]
"""A name inside a resource: an RFC 1123 label."""

Mac = Annotated[str, StringConstraints(to_lower=True, pattern=r"^([0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}$")]
"""A MAC address (IEEE 802), lower case."""


class OwnerReference(Model):
    """Who this object goes with (garbage collection)."""

    api_version: str
    kind: str
    name: str
    uid: str
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ManagedFieldsEntry(Model):
    """Which manager set which fields (server-side apply)."""

    manager: str | None = None
    operation: str | None = None
    api_version: str | None = None
    time: Time | None = None
    fields_type: str | None = None
    fields_v1: dict[str, Any] | None = Field(default=None, alias="fieldsV1")
    subresource: str | None = None


class ObjectMeta(Model):
    """Name, identity, version and labels."""

    name: str = ""
    generate_name: str | None = None
    namespace: str | None = None
    uid: str | None = None
    resource_version: str | None = None
    generation: int | None = None
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    deletion_grace_period_seconds: int | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    finalizers: list[str] | None = Field(default=None, json_schema_extra={"x-kubernetes-list-type": "set"})
    owner_references: list[OwnerReference] | None = Field(
        default=None,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["uid"]},
    )
    managed_fields: list[ManagedFieldsEntry] | None = Field(
        default=None, json_schema_extra={"x-kubernetes-list-type": "atomic"}
    )


class LocalReference(Model):
    """Another resource by its name, in the same namespace or cluster-wide, as the field says."""

    name: str = Field(min_length=1, max_length=253)


class SecretKeyReference(Model):
    """One key of a Secret in the same namespace."""

    name: str = Field(min_length=1, max_length=253)
    key: str = Field(default="userdata", min_length=1, max_length=253)


class Condition(Model):
    """One thing that is so, or not, or not known (API conventions, "Typical status properties")."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_transition_time: Time | None = None
    observed_generation: int | None = None


class StatusError(Model):
    """An error of ``carmel.errors`` as a resource shows it."""

    code: str
    message: str
    hint: str | None = None
    retryable: bool = False
    field: str | None = None


CONDITIONS_SCHEMA: JsonDict = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
BY_NAME_SCHEMA: JsonDict = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}


class Status(Model):
    """What most statuses have."""

    observed_generation: int | None = None
    conditions: list[Condition] | None = Field(default=None, json_schema_extra=CONDITIONS_SCHEMA)


class Resource(Model):
    """One object of the API. Subclasses add ``spec`` and ``status`` (or ``data``, for core/v1 kinds)."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = Field(default_factory=ObjectMeta)

    storage_version: ClassVar[int] = 1
    """Raised when the stored shape changes in a way that needs a migration (``store.migrations``)."""
