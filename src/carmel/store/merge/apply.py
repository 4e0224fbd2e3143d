"""Server-side apply: an object becomes what a manager's configuration says, as far as the fields are its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from carmel.errors import BadRequest, CarmelError, Cause, Conflict
from carmel.resources.base import JsonObject, format_time
from carmel.store.merge import fields
from carmel.store.merge.fields import FieldSet
from carmel.store.merge.managers import (
    APPLY,
    BEFORE_FIRST_APPLY,
    UPDATE,
    Manager,
    Managers,
    Owned,
    differences,
    owned_part,
    updated,
)
from carmel.store.merge.typed import Comparison, Schema, Untypable, field_set, merge, remove, with_named_parents

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_KUBECTL = "kubectl"


@dataclass(frozen=True, slots=True)
class Application:
    """One apply: what ``manager`` wants (``config``, without managedFields), and whether it takes fields by force."""

    manager: Manager
    config: JsonObject
    force: bool
    has_status: bool


Admit = Callable[[JsonObject], JsonObject]
"""The merged object in its stored form, or an error."""


def apply(
    schema: Schema, live: JsonObject, managers: Managers, application: Application, admit: Admit, now: datetime
) -> tuple[JsonObject, dict[Manager, Owned]]:
    """The object after an apply, and who owns its fields then; ``live`` is empty for a new object.

    Raises ``Conflict`` with a cause for each field that another manager owns and this one wants otherwise, and
    ``BadRequest`` for a configuration that does not fit its schema's lists.
    """
    manager, config = application.manager, application.config
    if live and not managers:
        unowned = differences(schema, {}, live)
        before = Manager(BEFORE_FIRST_APPLY, UPDATE, manager.api_version)
        managers = updated({}, before, unowned, now)
    wanted = _claims(schema, config)
    claimed = owned_part(wanted, manager.subresource, has_status=application.has_status)
    last = managers.get(manager)
    after = {**managers, manager: Owned(claimed, last.time if last else None)}
    try:
        merged = merge(schema, live, config)
    except Untypable as error:
        raise _unfit(error) from None
    if last is not None:
        # With what only the server sets: metadata never goes, though nobody may own a field in it.
        merged = _prune(schema, merged, last.fields, wanted.union(*(one.fields for one in after.values())))
    try:
        new = admit(_kubectl_annotation(live, merged, application))
    except CarmelError:
        # Whose fields these are comes before whether they are valid.
        _check_conflicts(schema, live, merged, managers, application)
        raise
    changed = _check_conflicts(schema, live, new, managers, application)
    written = changed.added | changed.modified
    for other, owned in managers.items():
        if other != manager:
            after[other] = Owned(owned.fields - written - changed.removed, owned.time)
    if last is None or last.fields != claimed or written or changed.removed:
        after[manager] = Owned(claimed, format_time(now))
    return new, {one: owned for one, owned in after.items() if owned.fields}


def _check_conflicts(
    schema: Schema, live: JsonObject, new: JsonObject, managers: Managers, application: Application
) -> Comparison:
    """What the apply changes; unless forced only fields that no one else owns."""
    changed = differences(schema, live, new)
    written = changed.added | changed.modified
    taken = {other: owned.fields & written for other, owned in managers.items() if other != application.manager}
    taken = {other: conflicting for other, conflicting in taken.items() if conflicting}
    if taken and not application.force and not _is_own_history(schema, live, application, taken):
        raise conflict(taken, managers)
    return changed


def _claims(schema: Schema, config: JsonObject) -> FieldSet:
    try:
        return field_set(schema, config)
    except Untypable as error:
        raise _unfit(error) from None


def _unfit(error: Untypable) -> BadRequest:
    return BadRequest(f"failed to create typed patch object: {error}", code="UntypedPatch")


def _prune(schema: Schema, merged: Any, last: FieldSet, owned: FieldSet) -> Any:
    """Without what this manager applied last time, no longer does, and nobody else owns."""
    last, owned = with_named_parents(schema, last), with_named_parents(schema, owned)
    there = _named(schema, merged)
    pruned = remove(schema, merged, last)
    pruned = remove(schema, merged, there - _named(schema, pruned) - owned)
    return remove(schema, merged, (there - _named(schema, pruned)) & last)


def _named(schema: Schema, value: Any) -> FieldSet:
    return with_named_parents(schema, frozenset(path for path in _lenient_set(schema, value) if path))


def _lenient_set(schema: Schema, value: Any) -> FieldSet:
    try:
        return field_set(schema, value or {})
    except Untypable:
        return differences(schema, {}, value or {}).added


def _kubectl_annotation(live: JsonObject, merged: JsonObject, application: Application) -> JsonObject:
    """Keep the annotation of ``kubectl apply`` true, for objects that have it and are now applied on the server."""
    if application.manager.name != _KUBECTL or _LAST_APPLIED not in _annotations(live):
        return merged
    said = orjson.dumps(application.config, option=orjson.OPT_SORT_KEYS).decode() + "\n"
    metadata = merged.get("metadata") or {}
    annotations = {**(metadata.get("annotations") or {}), _LAST_APPLIED: said}
    return {**merged, "metadata": {**metadata, "annotations": annotations}}


def _is_own_history(schema: Schema, live: JsonObject, application: Application, taken: dict[Manager, FieldSet]) -> bool:
    """``kubectl`` moved from client-side to server-side apply: what it applied before it may change without force."""
    if application.manager.name != _KUBECTL:
        return False
    try:
        before = orjson.loads(_annotations(live).get(_LAST_APPLIED, ""))
        applied = field_set(schema, before)
    except (orjson.JSONDecodeError, Untypable):
        return False
    return all(conflicting <= applied for conflicting in taken.values())


def _annotations(obj: JsonObject) -> dict[str, str]:
    return (obj.get("metadata") or {}).get("annotations") or {}


def conflict(taken: dict[Manager, FieldSet], managers: Managers) -> Conflict:
    """The error that names each field and its manager, in the words of Kubernetes."""
    found = sorted(
        (_shown(manager, managers[manager]), fields.show(path)) for manager in taken for path in taken[manager]
    )
    causes = [Cause(path, f"conflict with {shown}", "FieldManagerConflict") for shown, path in found]
    if len(found) == 1:
        said = f"Apply failed with 1 conflict: conflict with {found[0][0]}: {found[0][1]}"
    else:
        said = f"Apply failed with {len(found)} conflicts: " + "\n".join(
            f"conflicts with {shown}:\n" + "\n".join(f"- {path}" for one, path in found if one == shown)
            for shown in dict(found)
        )
    return Conflict(
        said,
        causes=causes,
        code="FieldManagerConflict",
        hint="leave these fields out, or apply with --force-conflicts to take them over",
    )


def _shown(manager: Manager, owned: Owned) -> str:
    said = orjson.dumps(manager.name).decode()
    if manager.subresource:
        said += f' with subresource "{manager.subresource}"'
    if manager.operation == UPDATE:
        said += f" using {manager.api_version}" + (f" at {owned.time}" if owned.time else "")
    return said


def applier(name: str, api_version: str, subresource: str) -> Manager:
    """The manager of an apply."""
    return Manager(name, APPLY, api_version, subresource)
