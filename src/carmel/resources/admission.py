"""What every object goes through before it is stored: pruning, defaults, validation, limits.

Pure, and the same for every writer: users, controllers and upgrades. Field errors are worded as Kubernetes words
them (``spec.cpu.count: Invalid value: 0: ...``), so that people's tools show them as they show others.
"""

from __future__ import annotations

import re
from typing import Any

import orjson
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from carmel.errors import Cause, Invalid, TooLarge
from carmel.resources.base import DNS_LABEL, DNS_SUBDOMAIN, JsonObject
from carmel.resources.kinds import Kind

MAX_OBJECT_BYTES = 256 * 1024
"""The architecture's bound on any object: what a Kubernetes cluster's store takes with ease."""

_LABEL_NAMES = frozenset({"VirtualMachine", "Namespace", "Network", "Datastore", "NVMeNamespace"})
"""Kinds whose names become host names, file names or labels, so they are RFC 1123 labels of at most 63 bytes."""

_QUALIFIED_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_RBAC_NAME = re.compile(r"[^/%]{1,253}")

_LABELS = {
    "FieldValueInvalid": "Invalid value",
    "FieldValueRequired": "Required value",
    "FieldValueDuplicate": "Duplicate value",
    "FieldValueForbidden": "Forbidden",
    "FieldValueNotSupported": "Unsupported value",
    "FieldValueTooLong": "Too long",
    "FieldValueTypeInvalid": "Invalid value",
}


def admit(kind: Kind, new: JsonObject, old: JsonObject | None) -> JsonObject:
    """``new`` in its stored form: unknown fields dropped, defaults set, values canonical.

    ``old`` is the stored object, ``None`` at creation. Metadata that the server sets (uid, generation, ...) is the
    store's work and passes through untouched. Raises ``Invalid`` with one cause a field, or ``TooLarge``.
    """
    metadata = new.get("metadata")
    causes = _metadata_causes(kind, metadata if isinstance(metadata, dict) else {})
    try:
        typed = kind.model.model_validate(new, by_alias=True, by_name=False)
    except ValidationError as exc:
        raise _invalid(kind, new, [*causes, *(_cause(error) for error in exc.errors(include_url=False))]) from None
    admitted = {**typed.to_json(), "apiVersion": kind.api_version, "kind": kind.kind}
    if causes:
        raise _invalid(kind, new, causes)
    if kind.validate is not None and (causes := kind.validate(admitted, old)):
        raise _invalid(kind, new, causes)
    size = len(orjson.dumps(admitted))
    if size > MAX_OBJECT_BYTES:
        raise TooLarge(
            f"{kind.kind} {admitted['metadata'].get('name')!r} has {size} bytes; an object may have {MAX_OBJECT_BYTES}"
        )
    return admitted


def check_name(kind: Kind, name: str) -> None:
    """Raises ``Invalid`` for what cannot be the name of a ``kind``."""
    metadata = {"name": name}
    if causes := _name_causes(kind, metadata):
        raise _invalid(kind, {"metadata": metadata}, causes)


def _invalid(kind: Kind, obj: JsonObject, causes: list[Cause]) -> Invalid:
    metadata = obj.get("metadata")
    name = metadata.get("name", "") if isinstance(metadata, dict) else ""
    said = [f"{cause.field}: {_LABELS.get(cause.reason, cause.reason)}: {cause.message}" for cause in causes]
    listed = said[0] if len(said) == 1 else "[" + ", ".join(said) + "]"
    title = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    return Invalid(f'{title} "{name}" is invalid: {listed}', causes=causes)


def _cause(error: ErrorDetails) -> Cause:
    return Cause(field=_path(error["loc"]), message=_sentence(error), reason=_reason(error["type"]))


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def _reason(error_type: str) -> str:
    if error_type == "missing":
        return "FieldValueRequired"
    if error_type in {"enum", "literal_error"}:
        return "FieldValueNotSupported"
    if error_type in {"string_too_long", "too_long"}:
        return "FieldValueTooLong"
    if error_type.endswith(("_type", "_parsing")):
        return "FieldValueTypeInvalid"
    return "FieldValueInvalid"


def _sentence(error: ErrorDetails) -> str:
    if error["type"] == "missing":
        return "is required"
    said = error["msg"].removeprefix("Value error, ")
    said = said.replace("Input should be", "must be").replace("String should", "must").replace("List should", "must")
    said = said[0].lower() + said[1:] if said[:1].isupper() and not said[1:2].isupper() else said
    given: Any = error["input"]
    if isinstance(given, str | int | float | bool) or given is None:
        shown = orjson.dumps(given if not isinstance(given, str) else given[:80]).decode()
        return f"{shown}: {said}"
    return said


def _metadata_causes(kind: Kind, metadata: JsonObject) -> list[Cause]:
    causes = _name_causes(kind, metadata)
    labels = metadata.get("labels")
    for key, value in labels.items() if isinstance(labels, dict) else ():
        causes += _key_causes("metadata.labels", key)
        if not _LABEL_VALUE.fullmatch(str(value)):
            causes.append(
                Cause(
                    "metadata.labels",
                    f"{orjson.dumps(str(value)[:80]).decode()}: a label's value has at most 63 letters, digits, '-', "
                    "'_' and '.', and starts and ends with a letter or digit",
                )
            )
    annotations = metadata.get("annotations")
    for key in annotations if isinstance(annotations, dict) else ():
        causes += _key_causes("metadata.annotations", key)
    finalizers = metadata.get("finalizers")
    for index, finalizer in enumerate(finalizers if isinstance(finalizers, list) else ()):
        causes += _key_causes(f"metadata.finalizers[{index}]", str(finalizer))
    return causes


def _name_causes(kind: Kind, metadata: JsonObject) -> list[Cause]:
    name = metadata.get("name")
    if not isinstance(name, str) or not name:
        if metadata.get("generateName"):
            return []
        return [Cause("metadata.name", "name or generateName is required", "FieldValueRequired")]
    shown = orjson.dumps(name[:80]).decode()
    if kind.group == "rbac.authorization.k8s.io":
        good = bool(_RBAC_NAME.fullmatch(name)) and name not in {".", ".."}
        rule = "must not be '.' or '..' nor contain '/' or '%'"
    elif kind.kind in _LABEL_NAMES:
        good = len(name) <= 63 and bool(re.fullmatch(DNS_LABEL, name))
        rule = (
            "must have at most 63 lower-case letters, digits and '-', and start and end with a letter or digit "
            "(an RFC 1123 label, such as 'my-vm')"
        )
    else:
        good = len(name) <= 253 and bool(re.fullmatch(DNS_SUBDOMAIN, name))
        rule = (
            "must have at most 253 lower-case letters, digits, '-' and '.', and start and end with a letter or digit "
            "(an RFC 1123 subdomain, such as 'debian-13.arm64')"
        )
    return [] if good else [Cause("metadata.name", f"{shown}: {rule}")]


def _key_causes(field: str, key: str) -> list[Cause]:
    prefix, slash, name = key.rpartition("/")
    good_prefix = not slash or (len(prefix) <= 253 and re.fullmatch(DNS_SUBDOMAIN, prefix.lower()))
    if good_prefix and _QUALIFIED_NAME.fullmatch(name):
        return []
    shown = orjson.dumps(key[:80]).decode()
    return [Cause(field, f"{shown}: must be a name such as 'app' or 'example.com/app'")]
