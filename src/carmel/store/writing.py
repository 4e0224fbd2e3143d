"""The writes, each as a function of what is stored now: it says what is to change, and changes nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import orjson

from carmel.errors import AlreadyExists, BadRequest, Cause, Forbidden, NotFound, TooLarge
from carmel.resources import admission, core, schema
from carmel.resources.base import JsonObject
from carmel.resources.core import NAMESPACE, SECRET
from carmel.resources.kinds import Kind
from carmel.store import lifecycle
from carmel.store.lifecycle import invalid, metadata_of, text_at
from carmel.store.memory import Change, Key, Memory
from carmel.store.merge import patched
from carmel.store.protocol import EventType, FieldValidation, PatchType, Preconditions, Stored, WriteOptions

_NAME_ATTEMPTS = 8
_IMMORTAL = frozenset({"default", "kube-system", "carmel-system"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the caller is answered, and the change that makes it true (``None``: there is nothing to change)."""

    answer: Stored
    change: Change | None = None


class View:
    """What is stored, as the writes of one transaction see it: with those before them."""

    def __init__(self, memory: Memory, now: datetime) -> None:
        self.now = now
        self.changes: list[Change] = []
        self._memory = memory
        self._revision = memory.revision
        self._overlay: dict[tuple[Kind, Key], Stored | None] = {}

    def find(self, kind: Kind, namespace: str | None, name: str) -> Stored | None:
        key = namespace or "", name
        if (kind, key) in self._overlay:
            return self._overlay[kind, key]
        return self._memory.tables[kind].objects.get(key)

    def next_revision(self) -> int:
        return self._revision + 1

    def add(self, change: Change) -> None:
        self._revision = change.revision
        self.changes.append(change)
        gone = change.type is EventType.DELETED
        self._overlay[change.after.kind, change.key] = None if gone else change.after


Write = Callable[[View], Outcome]


def dump(body: JsonObject) -> bytes:
    """The one form in which an object is stored: equal objects have equal bytes."""
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def copied(body: JsonObject) -> JsonObject:
    """A copy of what a caller gave. Raises ``BadRequest`` for what is no JSON object."""
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    try:
        copy: JsonObject = orjson.loads(orjson.dumps(body))
    except (TypeError, ValueError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    return copy


def not_found(kind: Kind, name: str) -> NotFound:
    return NotFound(f'{kind.resource} "{name}" not found')


def create(view: View, kind: Kind, body: JsonObject, options: WriteOptions) -> Outcome:
    body = copied(body)
    lifecycle.check_type(kind, body)
    metadata = metadata_of(body)
    if text_at(metadata, "resourceVersion"):
        raise BadRequest("resourceVersion should not be set on objects to be created", field="metadata.resourceVersion")
    metadata.pop("resourceVersion", None)
    _check_place(view, kind, metadata)
    _name(view, kind, metadata)
    if view.find(kind, metadata.get("namespace"), metadata["name"]) is not None:
        raise AlreadyExists(f'{kind.resource} "{metadata["name"]}" already exists')
    new = _admitted(kind, lifecycle.born(kind, body, view.now), None, options)
    return _stored(view, kind, None, new, dry_run=options.dry_run)


def _check_place(view: View, kind: Kind, metadata: JsonObject) -> None:
    namespace, name = text_at(metadata, "namespace"), text_at(metadata, "name")
    if not kind.namespaced:
        if namespace:
            raise invalid(kind, name, Cause("metadata.namespace", "not allowed on this type", "FieldValueForbidden"))
        metadata.pop("namespace", None)
        return
    if not namespace:
        raise invalid(kind, name, Cause("metadata.namespace", "Required value", "FieldValueRequired"))
    home = view.find(NAMESPACE, None, namespace)
    if home is None:
        raise not_found(NAMESPACE, namespace)
    if home.json()["metadata"].get("deletionTimestamp"):
        raise Forbidden(
            f'{kind.resource} "{name}" is forbidden: unable to create new content in namespace {namespace} '
            "because it is being terminated",
            code="NamespaceTerminating",
        )


def _name(view: View, kind: Kind, metadata: JsonObject) -> None:
    if text_at(metadata, "name"):
        return
    base = text_at(metadata, "generateName")
    if not base:
        raise invalid(kind, "", Cause("metadata.name", "Required value: name or generateName is required"))
    for _ in range(_NAME_ATTEMPTS):
        metadata["name"] = lifecycle.generated_name(base)
        if view.find(kind, metadata.get("namespace"), metadata["name"]) is None:
            return


def replace(view: View, kind: Kind, body: JsonObject, subresource: str, options: WriteOptions) -> Outcome:
    body = copied(body)
    lifecycle.check_type(kind, body)
    metadata = metadata_of(body)
    name = text_at(metadata, "name")
    stored = view.find(kind, text_at(metadata, "namespace") if kind.namespaced else None, name)
    if stored is None:
        raise not_found(kind, name)
    return _update(view, stored, body, subresource, options)


def patch(
    view: View,
    kind: Kind,
    namespace: str | None,
    name: str,
    document: bytes,
    patch_type: PatchType,
    subresource: str,
    options: WriteOptions,
) -> Outcome:
    stored = view.find(kind, namespace, name)
    if stored is None:
        raise not_found(kind, name)
    body = patched(kind, stored.json(), document, patch_type)
    lifecycle.check_type(kind, body)
    metadata = metadata_of(body)
    for field, right in (("name", name), ("namespace", stored.namespace or "")):
        if text_at(metadata, field) != right:
            raise BadRequest(f"metadata.{field} cannot be changed", field=f"metadata.{field}")
    return _update(view, stored, body, subresource, options)


def _update(view: View, stored: Stored, body: JsonObject, subresource: str, options: WriteOptions) -> Outcome:
    kind, old, metadata = stored.kind, stored.json(), metadata_of(body)
    lifecycle.check_versions(kind, old, uid=text_at(metadata, "uid"), version=text_at(metadata, "resourceVersion"))
    new = lifecycle.changed(kind, old, body, subresource)
    new = _admitted(kind, new, old, options)
    lifecycle.check_finalizers(kind, old, new)
    new["metadata"]["generation"] = lifecycle.next_generation(old, new)
    return _stored(view, kind, stored, new, dry_run=options.dry_run)


def _admitted(kind: Kind, new: JsonObject, old: JsonObject | None, options: WriteOptions) -> JsonObject:
    if options.field_validation is not FieldValidation.IGNORE:
        unknown = [f'unknown field "{path}"' for path in schema.unknown_fields(kind, new)]
        if unknown and options.field_validation is FieldValidation.STRICT:
            raise BadRequest(f"strict decoding error: {', '.join(unknown)}", code="UnknownField")
        options.warnings[:] = unknown
    if kind == SECRET:
        new = core.merge_string_data(new)
    return admission.admit(kind, new, old)


def _stored(view: View, kind: Kind, old: Stored | None, new: JsonObject, *, dry_run: bool) -> Outcome:
    """The outcome of writing ``new``: nothing when it is ``old``, its end when it waited for its last finalizer."""
    metadata = new["metadata"]
    if old is not None:
        metadata["resourceVersion"] = old.resource_version
        if dump(new) == old.raw:
            return Outcome(old)
    gone = bool(metadata.get("deletionTimestamp")) and not lifecycle.held_back(kind, new)
    kinds_of_change = {True: EventType.DELETED, False: EventType.MODIFIED if old else EventType.ADDED}
    return _outcome(view, kind, old, new, kinds_of_change[gone], dry_run=dry_run)


def _outcome(
    view: View, kind: Kind, old: Stored | None, new: JsonObject, change_type: EventType, *, dry_run: bool
) -> Outcome:
    metadata, revision = new["metadata"], view.next_revision()
    if not dry_run:
        metadata["resourceVersion"] = str(revision)
    raw = dump(new)
    if change_type is not EventType.DELETED and len(raw) > admission.MAX_OBJECT_BYTES:
        raise TooLarge(f"the object has {len(raw)} bytes, more than {admission.MAX_OBJECT_BYTES}")
    version = metadata.get("resourceVersion", "")
    after = Stored(kind, metadata.get("namespace"), metadata["name"], metadata["uid"], version, raw)
    return Outcome(after, None if dry_run else Change(change_type, revision, old, after))


def delete(
    view: View, kind: Kind, namespace: str | None, name: str, preconditions: Preconditions | None, *, dry_run: bool
) -> Outcome:
    stored = view.find(kind, namespace, name)
    if stored is None:
        raise not_found(kind, name)
    if kind == NAMESPACE and name in _IMMORTAL:
        raise Forbidden(f'namespaces "{name}" is forbidden: this namespace may not be deleted')
    old = stored.json()
    wanted = preconditions or Preconditions()
    lifecycle.check_versions(kind, old, uid=wanted.uid or "", version=wanted.resource_version or "")
    if not lifecycle.held_back(kind, old):
        return _outcome(view, kind, stored, old, EventType.DELETED, dry_run=dry_run)
    if old["metadata"].get("deletionTimestamp"):
        return Outcome(stored)
    return _outcome(view, kind, stored, lifecycle.marked(kind, old, view.now), EventType.MODIFIED, dry_run=dry_run)
