"""Garbage collection: an object whose owners are all gone goes too, in the background.

As kube-controller-manager's garbage collector does it: an owner counts as gone when no object of its kind, name and
uid is there; one that only waits for its finalizers is still there.
"""

from __future__ import annotations

from collections.abc import Iterable

from carmel.controllers.runtime import ControllerSpec, EventKind, Key, Runtime, Watch
from carmel.errors import NotFound
from carmel.resources.base import JsonObject, OwnerReference, Resource
from carmel.resources.kinds import Kind
from carmel.resources.registry import KINDS

_OWNED = "owner"


def add_garbage_collector(runtime: Runtime, kinds: Iterable[Kind] = KINDS) -> None:
    """One controller for each of ``kinds`` that may be owned: all but events, which expire by themselves."""
    known = tuple(kinds)
    for kind in known:
        if kind.kind != "Event":
            _add(runtime, kind, known)


def _add(runtime: Runtime, kind: Kind, owner_kinds: tuple[Kind, ...]) -> None:
    informer = runtime.informer(kind)
    informer.add_index(_OWNED, _owner_uids)
    objects = runtime.resources(kind, kind.model, manager="garbage-collector")
    by_name = {(one.api_version, one.kind): one for one in owner_kinds}

    async def reconcile(key: Key) -> float | None:
        obj = await objects.find(key)
        references = obj.metadata.owner_references if obj is not None else None
        if obj is None or not references or obj.metadata.deletion_timestamp is not None:
            return None
        for reference in references:
            if await _is_there(runtime, by_name, reference, obj):
                return None
        await objects.delete(obj)
        runtime.events.record(
            kind, obj, EventKind.NORMAL, "OwnerGone", f"{references[0].kind} {references[0].name} is gone"
        )
        return None

    def owned_by(owner: JsonObject) -> list[Key]:
        return informer.indexed(_OWNED, owner["metadata"]["uid"])

    runtime.add(
        ControllerSpec(
            name=f"garbage-collector-{kind.plural}",
            kind=kind,
            reconcile=reconcile,
            watches=tuple(Watch(owner, owned_by) for owner in owner_kinds if owner.kind != "Event"),
            accepts=lambda obj: bool(obj["metadata"].get("ownerReferences")),
            workers=1,
        )
    )


async def _is_there(
    runtime: Runtime, kinds: dict[tuple[str, str], Kind], reference: OwnerReference, obj: Resource
) -> bool:
    kind = kinds.get((reference.api_version, reference.kind))
    if kind is None:
        # Nobody here knows whether it is there: better to keep what might be needed.
        return True
    try:
        owner = await runtime.store.get(kind, obj.metadata.namespace if kind.namespaced else None, reference.name)
    except NotFound:
        return False
    return owner.uid == reference.uid


def _owner_uids(obj: JsonObject) -> list[str]:
    return [reference["uid"] for reference in obj["metadata"].get("ownerReferences") or []]
