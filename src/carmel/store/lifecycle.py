"""What becomes of an object's metadata, status and finalizers when it is created, changed and deleted.

Pure: JSON in, JSON out. The rules are those of the Kubernetes API conventions ("Metadata", "Spec and Status") and of
its finalizers; nothing here knows of databases.
"""

from __future__ import annotations

import secrets
import uuid
from datetime import datetime
from typing import Any

from carmel.errors import BadRequest, Cause, Conflict, Invalid
from carmel.resources.base import JsonObject, format_time
from carmel.resources.core import NAMESPACE
from carmel.resources.kinds import Kind

_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"
_SUFFIX_LENGTH = 5
_GENERATED_BASE = 63 - _SUFFIX_LENGTH
_SERVER_SET = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
_MAPS_AND_LISTS = ("labels", "annotations", "finalizers", "ownerReferences")
NAMESPACE_FINALIZER = "kubernetes"


def invalid(kind: Kind, name: str, *causes: Cause) -> Invalid:
    """``VirtualMachine.carmel.dev "web" is invalid: spec.x: ...``, as Kubernetes says it."""
    group = f".{kind.group}" if kind.group else ""
    listed = [f"{cause.field}: {cause.message}" for cause in causes]
    said = listed[0] if len(listed) == 1 else f"[{', '.join(listed)}]"
    return Invalid(f'{kind.kind}{group} "{name}" is invalid: {said}', causes=causes)


def metadata_of(body: JsonObject) -> JsonObject:
    """``metadata``, made when it is missing, without empty maps and lists. Raises ``BadRequest`` for no object."""
    metadata = body.setdefault("metadata", {})
    if metadata is None:
        metadata = body["metadata"] = {}
    if not isinstance(metadata, dict):
        raise BadRequest("metadata must be an object", field="metadata")
    for field in _MAPS_AND_LISTS:
        if metadata.get(field) in ({}, []):
            del metadata[field]
    return metadata


def check_type(kind: Kind, body: JsonObject) -> None:
    """``apiVersion`` and ``kind`` are what the request is for; absent ones are filled in."""
    for field, right in (("apiVersion", kind.api_version), ("kind", kind.kind)):
        given = body.get(field) or right
        if given != right:
            raise BadRequest(f"{field} is {str(given)[:100]!r}, but this request is for {right!r}", field=field)
        body[field] = right


def text_at(metadata: JsonObject, field: str) -> str:
    """A string of the metadata; absent is empty. Raises ``BadRequest`` for anything else."""
    value = metadata.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRequest(f"metadata.{field} must be a string", field=f"metadata.{field}")
    return value


def generated_name(base: str) -> str:
    """A name that begins with ``base`` and is not guessed: 27^5 possibilities, as Kubernetes makes them."""
    return base[:_GENERATED_BASE] + "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(_SUFFIX_LENGTH))


def born(kind: Kind, body: JsonObject, now: datetime) -> JsonObject:
    """A new object as it is first stored: identity given, status empty."""
    metadata = {key: value for key, value in body["metadata"].items() if key not in _SERVER_SET}
    metadata.pop("selfLink", None)
    new = {**body, "metadata": metadata}
    metadata.update(uid=str(uuid.uuid4()), creationTimestamp=format_time(now), generation=1)
    if kind.has_status:
        new.pop("status", None)
    if kind == NAMESPACE:
        new["spec"] = {**(new.get("spec") or {}), "finalizers": [NAMESPACE_FINALIZER]}
        new["status"] = {"phase": "Active"}
    return new


def changed(kind: Kind, old: JsonObject, body: JsonObject, subresource: str) -> JsonObject:
    """What a write of ``body`` may change of ``old``: see ``Store`` for which subresource changes what."""
    if subresource == "status":
        new = {**old, "metadata": _keep_fields_of(old, body)}
        return _take(new, "status", body)
    if subresource == "finalize":
        spec = {**(old.get("spec") or {}), "finalizers": (body.get("spec") or {}).get("finalizers") or []}
        return {**old, "metadata": _keep_fields_of(old, body), "spec": spec}
    metadata = dict(body["metadata"])
    metadata.pop("selfLink", None)
    for field in (*_SERVER_SET, "name", "namespace"):
        _take(metadata, field, old["metadata"])
    new = {**body, "metadata": metadata}
    if kind == NAMESPACE:
        new["spec"] = {**(new.get("spec") or {}), "finalizers": (old.get("spec") or {}).get("finalizers") or []}
    return _take(new, "status", old) if kind.has_status else new


def _keep_fields_of(old: JsonObject, body: JsonObject) -> JsonObject:
    return _take(dict(old["metadata"]), "managedFields", body["metadata"])


def _take(target: JsonObject, field: str, source: JsonObject) -> JsonObject:
    if source.get(field) is None:
        target.pop(field, None)
    else:
        target[field] = source[field]
    return target


def check_finalizers(kind: Kind, old: JsonObject, new: JsonObject) -> None:
    """Nothing may newly hold back an object that is being deleted."""
    if not old["metadata"].get("deletionTimestamp"):
        return
    added = sorted(set(finalizers(new)) - set(finalizers(old)))
    if added:
        message = f"no new finalizers can be added if the object is being deleted, found new finalizers {added}"
        cause = Cause("metadata.finalizers", f"Forbidden: {message}", "FieldValueForbidden")
        raise invalid(kind, old["metadata"]["name"], cause)


def finalizers(obj: JsonObject) -> list[str]:
    found: list[str] = obj["metadata"].get("finalizers") or []
    return found


def held_back(kind: Kind, obj: JsonObject) -> bool:
    """Somebody has work to do before this object may go."""
    return bool(finalizers(obj) or (kind == NAMESPACE and (obj.get("spec") or {}).get("finalizers")))


def next_generation(old: JsonObject, new: JsonObject) -> int:
    """One more than before if the write changed what is wanted: anything but metadata and status."""
    generation: int = old["metadata"].get("generation") or 1
    return generation + (_wanted(old) != _wanted(new))


def _wanted(obj: JsonObject) -> dict[str, Any]:
    return {key: value for key, value in obj.items() if key not in {"metadata", "status"}}


def marked(kind: Kind, old: JsonObject, now: datetime) -> JsonObject:
    """An object that is being deleted but has finalizers left."""
    generation = (old["metadata"].get("generation") or 1) + 1
    mark = {"deletionTimestamp": format_time(now), "deletionGracePeriodSeconds": 0, "generation": generation}
    new = {**old, "metadata": {**old["metadata"], **mark}}
    if kind == NAMESPACE:
        new["status"] = {**(old.get("status") or {}), "phase": "Terminating"}
    return new


def check_versions(kind: Kind, old: JsonObject, *, uid: str, version: str) -> None:
    """A write that names an object and a version of it is for these only. Raises ``Conflict``."""
    name, metadata = old["metadata"]["name"], old["metadata"]
    if uid and uid != metadata["uid"]:
        why = f"Precondition failed: UID in precondition: {uid[:64]}, UID in object meta: {metadata['uid']}"
        raise Conflict(f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}')
    if version and version != metadata["resourceVersion"]:
        raise Conflict(
            f'Operation cannot be fulfilled on {kind.resource} "{name}": the object has been modified; '
            "please apply your changes to the latest version and try again"
        )
