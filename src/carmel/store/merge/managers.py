"""Who set which fields: ``metadata.managedFields``, kept for every write (Kubernetes, "Server-Side Apply").

Each entry belongs to a manager: its name, how it writes (``Apply`` or ``Update``), the API version and subresource
it writes through. The same name with another way of writing is another manager.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from carmel.errors import BadRequest
from carmel.resources.base import JsonObject, format_time
from carmel.resources.kinds import Kind
from carmel.store.merge import fields
from carmel.store.merge.fields import NOTHING, FieldSet, member
from carmel.store.merge.typed import Comparison, Schema, compare

APPLY, UPDATE = "Apply", "Update"
BEFORE_FIRST_APPLY = "before-first-apply"
MAX_UPDATERS = 10
_ANCIENT = "ancient-changes"
_MAX_NAME = 128

_NOT_OWNED = frozenset(
    {("f:apiVersion",), ("f:kind",), ("f:metadata",)}
    | {
        ("f:metadata", member(name))
        for name in (
            *("name", "namespace", "selfLink", "uid", "resourceVersion", "generation", "managedFields"),
            *("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"),
        )
    }
)
"""What only the server sets belongs to nobody."""


@dataclass(frozen=True, slots=True)
class Manager:
    """Who writes, and how."""

    name: str
    operation: str
    api_version: str
    subresource: str = ""


@dataclass(frozen=True, slots=True)
class Owned:
    """What a manager owns, and when that changed last."""

    fields: FieldSet
    time: str | None


Managers = Mapping[Manager, Owned]


def check_name(name: str) -> None:
    """A manager's name has at most 128 printable characters. Raises ``BadRequest``."""
    if not name or len(name) > _MAX_NAME or not name.isprintable():
        raise BadRequest("fieldManager must have 1 to 128 printable characters", field="fieldManager")


def decode(entries: Any) -> dict[Manager, Owned]:
    """The managers of ``metadata.managedFields``. Raises ``ValueError`` for what cannot be read."""
    found: dict[Manager, Owned] = {}
    for entry in entries or ():
        if not isinstance(entry, dict) or entry.get("operation") not in (APPLY, UPDATE):
            raise ValueError("an entry of managedFields needs the operation Apply or Update")
        if entry.get("fieldsType", "FieldsV1") != "FieldsV1":
            raise ValueError("an entry of managedFields needs the fieldsType FieldsV1")
        names = [entry.get(key) or "" for key in ("manager", "operation", "apiVersion", "subresource")]
        if not all(isinstance(name, str) for name in names):
            raise ValueError("an entry of managedFields is not of strings")
        found[Manager(*names)] = Owned(fields.decode(entry.get("fieldsV1") or {}), entry.get("time"))
    return found


def encode(managers: Managers) -> list[JsonObject]:
    """``metadata.managedFields``, appliers first, then by time and name, as Kubernetes orders them."""
    order = sorted(
        ((manager, owned) for manager, owned in managers.items() if owned.fields),
        key=lambda one: (one[0].operation, one[1].time or "", one[0].name, one[0].api_version, one[0].subresource),
    )
    return [_entry(manager, owned) for manager, owned in order]


def _entry(manager: Manager, owned: Owned) -> JsonObject:
    entry: JsonObject = {
        "manager": manager.name,
        "operation": manager.operation,
        "apiVersion": manager.api_version,
        "fieldsType": "FieldsV1",
        "fieldsV1": fields.encode(owned.fields),
    }
    if owned.time:
        entry["time"] = owned.time
    if manager.subresource:
        entry["subresource"] = manager.subresource
    return entry


def owned_part(found: FieldSet, subresource: str, *, has_status: bool) -> FieldSet:
    """The fields of a write that can belong to its manager: through ``status`` the status alone, else all but it."""
    if subresource == "status":
        return frozenset(path for path in found if path[:1] == ("f:status",))
    return frozenset(
        path for path in found - _NOT_OWNED if path and not (has_status and path[0] == "f:status" and not subresource)
    )


def own(changed: Comparison, subresource: str, kind: Kind) -> Comparison:
    """The part of a comparison that a write through ``subresource`` is answerable for."""
    parts = (changed.added, changed.modified, changed.removed)
    return Comparison(*(owned_part(part, subresource, has_status=kind.has_status) for part in parts))


def differences(schema: Schema, old: JsonObject, new: JsonObject) -> Comparison:
    """What a write changed, without what the server sets."""
    found = compare(schema, old, new)
    return Comparison(*(part - _NOT_OWNED - {()} for part in (found.added, found.modified, found.removed)))


def updated(managers: Managers, manager: Manager, changed: Comparison, now: datetime) -> dict[Manager, Owned]:
    """The managers after a plain write: what it set is its own and no one else's, what it removed nobody's."""
    written = changed.added | changed.modified
    after: dict[Manager, Owned] = {}
    for other, owned in managers.items():
        if other != manager:
            after[other] = Owned(owned.fields - written - changed.removed, owned.time)
    before = managers.get(manager, Owned(NOTHING, None))
    mine = (before.fields | written) - changed.removed
    time = format_time(now) if written or mine != before.fields else before.time
    after[manager] = Owned(mine, time)
    return _capped({one: owned for one, owned in after.items() if owned.fields})


def _capped(managers: dict[Manager, Owned]) -> dict[Manager, Owned]:
    """At most ``MAX_UPDATERS`` that write plainly: beyond that the oldest become one, as in Kubernetes."""
    updaters = sorted(
        (one for one in managers if one.operation == UPDATE), key=lambda one: (managers[one].time or "", one.name)
    )
    surplus = updaters[: max(0, len(updaters) - MAX_UPDATERS + 1)] if len(updaters) > MAX_UPDATERS else []
    kept = {one: owned for one, owned in managers.items() if one not in surplus}
    for one in surplus:
        bucket = Manager(_ANCIENT, UPDATE, one.api_version)
        held = kept.get(bucket, Owned(NOTHING, None))
        kept[bucket] = Owned(held.fields | managers[one].fields, managers[one].time)
    return kept
