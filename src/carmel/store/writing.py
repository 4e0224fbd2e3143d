"""The writes, each as a function of what is stored now: it says what is to change, and changes nothing itself."""

from __future__ import annotations

from carmel.errors import AlreadyExists, BadRequest, Cause, Conflict, Forbidden, TooLarge
from carmel.resources import admission, core, schema
from carmel.resources.base import JsonObject
from carmel.resources.core import NAMESPACE, SECRET
from carmel.resources.kinds import Kind
from carmel.store import lifecycle
from carmel.store.lifecycle import invalid, metadata_of, text_at
from carmel.store.memory import Change
from carmel.store.merge import managers as ownership
from carmel.store.merge.apply import Application, applier, apply
from carmel.store.merge.managers import UPDATE, Manager, Owned
from carmel.store.merge.patch import configuration, patched
from carmel.store.merge.typed import known
from carmel.store.protocol import EventType, FieldValidation, PatchType, Preconditions, Stored, WriteOptions
from carmel.store.view import Outcome, View, copied, dump, not_found

_NAME_ATTEMPTS = 8
_IMMORTAL = frozenset({"default", "kube-system", "carmel-system"})


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
    _check_fields(kind, body, options)
    metadata.pop("managedFields", None)
    new = _admitted(kind, lifecycle.born(kind, body, view.now), None)
    _own(new, _updated(view, kind, {"metadata": {}}, new, {}, "", options))
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
    if patch_type is PatchType.APPLY:
        return apply_configuration(view, kind, namespace, name, document, subresource, options)
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
    _check_fields(kind, body, options)
    tracked = old["metadata"].pop("managedFields", None)
    before = _managers_to_go_on_from(tracked, metadata.pop("managedFields", None) if not subresource else None)
    new = _admitted(kind, lifecycle.changed(kind, old, body, subresource), old)
    # An object whose owners were never known is not tracked before it is applied for the first time.
    _own(new, _updated(view, kind, old, new, before, subresource, options) if tracked else before)
    return _changed(view, stored, old, new, dry_run=options.dry_run)


def _changed(view: View, stored: Stored, old: JsonObject, new: JsonObject, *, dry_run: bool) -> Outcome:
    lifecycle.check_finalizers(stored.kind, old, new)
    new["metadata"]["generation"] = lifecycle.next_generation(old, new)
    return _stored(view, stored.kind, stored, new, dry_run=dry_run)


def apply_configuration(
    view: View,
    kind: Kind,
    namespace: str | None,
    name: str,
    document: bytes,
    subresource: str,
    options: WriteOptions,
) -> Outcome:
    config = copied(configuration(document))
    metadata = _check_configuration(kind, namespace, name, config, options)
    stored = view.find(kind, namespace, name)
    if stored is None:
        if subresource:
            raise not_found(kind, name)
        _check_place(view, kind, metadata)
    old = {} if stored is None else stored.json()
    uid, version = text_at(metadata, "uid"), text_at(metadata, "resourceVersion")
    if stored is not None:
        lifecycle.check_versions(kind, old, uid=uid, version=version)
    elif uid or version:
        raise Conflict(f'Operation cannot be fulfilled on {kind.resource} "{name}": the object is not there any more')
    for field in ("uid", "resourceVersion"):
        metadata.pop(field, None)
    if kind == SECRET:
        config = core.merge_string_data(config)
    live = {**old, "metadata": {**old["metadata"]}} if old else {}
    before = _decoded(live["metadata"].pop("managedFields", None)) if live else {}

    def admit(merged: JsonObject) -> JsonObject:
        if stored is None:
            return _admitted(kind, lifecycle.born(kind, merged, view.now), None)
        return _admitted(kind, lifecycle.changed(kind, live, merged, subresource), live)

    schema_of_kind = schema.structural_schema(kind)
    manager = applier(options.manager, kind.api_version, subresource)
    application = Application(manager, known(schema_of_kind, config), options.force, kind.has_status)
    new, after = apply(schema_of_kind, live, before, application, admit, view.now)
    _own(new, after)
    if stored is None:
        return _stored(view, kind, None, new, dry_run=options.dry_run)
    return _changed(view, stored, live, new, dry_run=options.dry_run)


def _check_configuration(
    kind: Kind, namespace: str | None, name: str, config: JsonObject, options: WriteOptions
) -> JsonObject:
    lifecycle.check_type(kind, config)
    ownership.check_name(options.manager)
    metadata = metadata_of(config)
    if metadata.pop("managedFields", None) is not None:
        raise BadRequest("metadata.managedFields must be nil", field="metadata.managedFields")
    for field, right in (("name", name), ("namespace", namespace or "")):
        if (text_at(metadata, field) or right) != right:
            raise BadRequest(
                f"metadata.{field} is {metadata[field][:253]!r}, but the request is for {right!r}",
                field=f"metadata.{field}",
            )
    metadata["name"] = name
    if namespace:
        metadata["namespace"] = namespace
    _check_fields(kind, config, options)
    return metadata


def _check_fields(kind: Kind, body: JsonObject, options: WriteOptions) -> None:
    if options.field_validation is FieldValidation.IGNORE:
        return
    paths = schema.unknown_fields(kind, body)
    unknown = [f'unknown field "{path}"' for path in paths]
    if unknown and options.field_validation is FieldValidation.STRICT:
        raise BadRequest(
            f"strict decoding error: {', '.join(unknown)}",
            code="UnknownField",
            field=paths[0],
            hint=f"carmel explain {kind.singular} shows the fields there are",
        )
    options.warnings[:] = unknown


def _admitted(kind: Kind, new: JsonObject, old: JsonObject | None) -> JsonObject:
    if kind == SECRET:
        new = core.merge_string_data(new)
    return admission.admit(kind, new, old)


def _managers_to_go_on_from(tracked: object, given: object) -> dict[Manager, Owned]:
    """The stored owners, or those that the body names: ``[{}]`` is how a client forgets them all.

    None, an empty list or what cannot be read leaves them, since many clients know nothing of owners.
    """
    if given == [{}]:
        return {}
    try:
        return ownership.decode(given) or _decoded(tracked)
    except (ValueError, TypeError, AttributeError):
        return _decoded(tracked)


def _decoded(entries: object) -> dict[Manager, Owned]:
    try:
        return ownership.decode(entries)
    except (ValueError, TypeError, AttributeError):
        return {}


def _updated(
    view: View,
    kind: Kind,
    old: JsonObject,
    new: JsonObject,
    before: dict[Manager, Owned],
    subresource: str,
    options: WriteOptions,
) -> dict[Manager, Owned]:
    ownership.check_name(options.manager)
    manager = Manager(options.manager, UPDATE, kind.api_version, subresource)
    changed = ownership.differences(schema.structural_schema(kind), old, new)
    return ownership.updated(before, manager, ownership.own(changed, subresource, kind), view.now)


def _own(new: JsonObject, managers: dict[Manager, Owned]) -> None:
    if managers:
        new["metadata"]["managedFields"] = ownership.encode(managers)
    else:
        new["metadata"].pop("managedFields", None)


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
