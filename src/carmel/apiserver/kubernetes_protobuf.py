"""Kubernetes' own protocol buffers, read only: current kubectl sends the built-in kinds in no other way.

``kubectl create namespace|secret|rolebinding`` and ``kubectl auth can-i`` of 1.37 post protobuf without asking first,
and take JSON back. The envelope is "k8s\\0" and a ``runtime.Unknown``; the tables name the fields of the
``generated.proto`` files of ``k8s.io/api`` and ``k8s.io/apimachinery`` (proto2). Fields that are not named are dropped,
and so are empty ones, as the ``omitempty`` of the JSON form does.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from carmel.errors import BadRequest
from carmel.resources.base import JsonObject, format_micro_time, format_time

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 16

Decode = Callable[[Any, int], Any]
"""(wire value, depth) -> JSON value, ``None`` for an empty one."""


class _Malformed(ValueError):
    """No protocol buffer of this kind."""


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    decode: Decode
    repeated: bool = False
    entries: bool = False
    """A map: each value is a message of key (1) and value (2)."""


Fields = Mapping[int, Field]


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        if position >= len(data):
            raise _Malformed("it ends in the middle of a number")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise _Malformed("a number has too many bytes")


def _wire(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field number, value) of a message: an integer or bytes."""
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _read_varint(data, position)
            yield number, value
            continue
        if kind == _BYTES:
            size, position = _read_varint(data, position)
        elif kind in {_FIXED64, _FIXED32}:
            size = 8 if kind == _FIXED64 else 4
        else:
            raise _Malformed(f"there is no wire type {kind}")
        if position + size > len(data):
            raise _Malformed("it ends in the middle of a field")
        yield number, data[position : position + size]
        position += size


def _as_bytes(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise _Malformed("a field has the wrong wire type")
    return value


def _as_int(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise _Malformed("a field has the wrong wire type")
    return value - 2**64 if value >= 2**63 else value


def _text(value: int | bytes, _depth: int) -> str | None:
    return _as_bytes(value).decode() or None


def _base64(value: int | bytes, _depth: int) -> str:
    return base64.b64encode(_as_bytes(value)).decode()


def _int(value: int | bytes, _depth: int) -> int | None:
    return _as_int(value) or None


def _given_int(value: int | bytes, _depth: int) -> int:
    return _as_int(value)


def _bool(value: int | bytes, _depth: int) -> bool:
    return bool(_as_int(value))


def _instant(value: int | bytes) -> datetime | None:
    parts = {number: _as_int(part) for number, part in _wire(_as_bytes(value))}
    if not parts:
        return None
    try:
        return datetime.fromtimestamp(parts.get(1, 0), UTC).replace(microsecond=parts.get(2, 0) // 1000 % 1_000_000)
    except (OverflowError, ValueError, OSError):
        raise _Malformed("a time is out of range") from None


def _time(value: int | bytes, _depth: int) -> str | None:
    moment = _instant(value)
    return format_time(moment) if moment else None


def _micro_time(value: int | bytes, _depth: int) -> str | None:
    moment = _instant(value)
    return format_micro_time(moment) if moment else None


def _raw_json(value: int | bytes, _depth: int) -> Any:
    """``FieldsV1``: JSON as bytes in field 1."""
    raw = dict(_wire(_as_bytes(value))).get(1)
    return orjson.loads(raw) if isinstance(raw, bytes) and raw else None


def _message(fields: Fields) -> Decode:
    def decode(value: int | bytes, depth: int) -> JsonObject | None:
        return _object(_as_bytes(value), fields, depth + 1) or None

    return decode


def _object(data: bytes, fields: Fields, depth: int = 0) -> JsonObject:
    if depth > _MAX_DEPTH:
        raise _Malformed("it is nested too deeply")
    found: JsonObject = {}
    for number, value in _wire(data):
        field = fields.get(number)
        if field is None:
            continue
        if field.entries:
            entry = dict(_wire(_as_bytes(value)))
            key = _text(entry.get(1, b""), depth) or ""
            found.setdefault(field.name, {})[key] = field.decode(entry.get(2, b""), depth) or ""
        elif field.repeated:
            found.setdefault(field.name, []).append(field.decode(value, depth))
        elif (decoded := field.decode(value, depth)) is not None:
            found[field.name] = decoded
    return found


def _texts(*names: str, first: int = 1) -> dict[int, Field]:
    """Consecutive text fields."""
    return {number: Field(name, _text) for number, name in enumerate(names, first)}


_OWNER: Fields = {
    1: Field("kind", _text),
    3: Field("name", _text),
    4: Field("uid", _text),
    5: Field("apiVersion", _text),
    6: Field("controller", _bool),
    7: Field("blockOwnerDeletion", _bool),
}
_MANAGED: Fields = {
    **_texts("manager", "operation", "apiVersion"),
    4: Field("time", _time),
    6: Field("fieldsType", _text),
    7: Field("fieldsV1", _raw_json),
    8: Field("subresource", _text),
}
_META: Fields = {
    1: Field("name", _text),
    2: Field("generateName", _text),
    3: Field("namespace", _text),
    5: Field("uid", _text),
    6: Field("resourceVersion", _text),
    7: Field("generation", _int),
    8: Field("creationTimestamp", _time),
    9: Field("deletionTimestamp", _time),
    10: Field("deletionGracePeriodSeconds", _given_int),
    11: Field("labels", _text, entries=True),
    12: Field("annotations", _text, entries=True),
    13: Field("ownerReferences", _message(_OWNER), repeated=True),
    14: Field("finalizers", _text, repeated=True),
    17: Field("managedFields", _message(_MANAGED), repeated=True),
}
_METADATA = {1: Field("metadata", _message(_META))}
_REFERENCE = _message(_texts("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath"))
_BINDING: Fields = {
    **_METADATA,
    2: Field("subjects", _message(_texts("kind", "apiGroup", "name", "namespace")), repeated=True),
    3: Field("roleRef", _message(_texts("apiGroup", "kind", "name"))),
}
_NAMESPACE_SPEC: Fields = {1: Field("finalizers", _text, repeated=True)}
_RESOURCE_ATTRIBUTES = _texts("namespace", "verb", "group", "version", "resource", "subresource", "name")
_ACCESS: Fields = {
    1: Field("resourceAttributes", _message(_RESOURCE_ATTRIBUTES)),
    2: Field("nonResourceAttributes", _message(_texts("path", "verb"))),
}
_LEASE_SPEC: Fields = {
    1: Field("holderIdentity", _text),
    2: Field("leaseDurationSeconds", _int),
    3: Field("acquireTime", _micro_time),
    4: Field("renewTime", _micro_time),
    5: Field("leaseTransitions", _given_int),
}
_EVENT: Fields = {
    **_METADATA,
    2: Field("involvedObject", _REFERENCE),
    3: Field("reason", _text),
    4: Field("message", _text),
    5: Field("source", _message(_texts("component", "host"))),
    6: Field("firstTimestamp", _time),
    7: Field("lastTimestamp", _time),
    8: Field("count", _int),
    9: Field("type", _text),
    10: Field("eventTime", _micro_time),
    12: Field("action", _text),
    14: Field("reportingComponent", _text),
    15: Field("reportingInstance", _text),
}
_MESSAGES: Mapping[tuple[str, str], Fields] = {
    ("v1", "Namespace"): {
        **_METADATA,
        2: Field("spec", _message(_NAMESPACE_SPEC)),
        3: Field("status", _message(_texts("phase"))),
    },
    ("v1", "Secret"): {
        **_METADATA,
        2: Field("data", _base64, entries=True),
        3: Field("type", _text),
        4: Field("stringData", _text, entries=True),
        5: Field("immutable", _bool),
    },
    ("v1", "Event"): _EVENT,
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): _BINDING,
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): _BINDING,
    ("coordination.k8s.io/v1", "Lease"): {**_METADATA, 2: Field("spec", _message(_LEASE_SPEC))},
    ("authorization.k8s.io/v1", "SelfSubjectAccessReview"): {**_METADATA, 2: Field("spec", _message(_ACCESS))},
    ("authorization.k8s.io/v1", "SelfSubjectRulesReview"): {
        **_METADATA,
        2: Field("spec", _message(_texts("namespace"))),
    },
    ("authentication.k8s.io/v1", "SelfSubjectReview"): _METADATA,
}
_DELETE_OPTIONS: Fields = {
    1: Field("gracePeriodSeconds", _given_int),
    2: Field("preconditions", _message(_texts("uid", "resourceVersion"))),
    3: Field("orphanDependents", _bool),
    4: Field("propagationPolicy", _text),
    5: Field("dryRun", _text, repeated=True),
}


def parse_protobuf(body: bytes) -> JsonObject:
    """The object in JSON's shape. Raises ``BadRequest`` for what is no object of a built-in kind."""
    if not body.startswith(_MAGIC):
        raise BadRequest("the body is not a Kubernetes protocol buffer")
    try:
        return _unwrapped(body[len(_MAGIC) :])
    except (_Malformed, ValueError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise BadRequest(f"the body is not a Kubernetes protocol buffer: {error}") from None


def _unwrapped(data: bytes) -> JsonObject:
    envelope = dict(_wire(data))
    of_type = _object(_as_bytes(envelope.get(1, b"")), _texts("apiVersion", "kind"))
    api_version, kind = of_type.get("apiVersion", ""), of_type.get("kind", "")
    fields = _DELETE_OPTIONS if kind == "DeleteOptions" else _MESSAGES.get((api_version, kind))
    if fields is None:
        raise BadRequest(
            f"{kind[:80] or 'this kind'} of {api_version[:80] or 'no version'} is not spoken in protocol buffers here",
            hint="send JSON",
        )
    return {"apiVersion": api_version, "kind": kind, **_object(_as_bytes(envelope.get(2, b"")), fields)}
