"""Namespaces: one that is being deleted goes when all that was in it is gone."""

from __future__ import annotations

import asyncio

from carmel.controllers.runtime import ControllerSpec, Key, Runtime, Watch
from carmel.errors import NotFound
from carmel.resources.base import JsonObject
from carmel.resources.core import EVENT, NAMESPACE, Namespace
from carmel.resources.kinds import Kind
from carmel.resources.registry import KINDS
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.store.protocol import Store, Stored

FINALIZER = "kubernetes"
_AT_A_TIME = 100
_LOOK_AGAIN_SECONDS = 30.0


def add_namespace_controller(runtime: Runtime) -> None:
    namespaces = runtime.resources(NAMESPACE, Namespace, manager="namespace-controller")
    kinds = tuple(kind for kind in KINDS if kind.namespaced)

    async def reconcile(key: Key) -> float | None:
        namespace = await namespaces.find(key)
        if namespace is None or namespace.metadata.deletion_timestamp is None:
            return None
        if await _empty(runtime.store, kinds, key.name):
            body = namespace.to_json()
            body["spec"] = {"finalizers": [one for one in namespace.spec.finalizers or [] if one != FINALIZER]}
            await runtime.store.replace(NAMESPACE, body, subresource="finalize")
            return None
        # The deletion of what is left tells itself; this is for what was deleted while we looked.
        return _LOOK_AGAIN_SECONDS

    def home(obj: JsonObject) -> list[Key]:
        key = Key(None, obj["metadata"]["namespace"])
        stored = runtime.informer(NAMESPACE).get(key)
        return [key] if stored is not None and _terminating(stored) else []

    runtime.add(
        ControllerSpec(
            name="namespace-controller",
            kind=NAMESPACE,
            reconcile=reconcile,
            watches=tuple(Watch(kind, home) for kind in kinds if kind != EVENT),
            accepts=lambda namespace: bool(namespace["metadata"].get("deletionTimestamp")),
            workers=1,
        )
    )


async def _empty(store: Store, kinds: tuple[Kind, ...], namespace: str) -> bool:
    """Delete what is in ``namespace``; whether nothing is left in it now."""
    # VMs alone at first: their end may still use what is beside them (secrets, volumes that stay till then).
    if not await _delete_all(store, VIRTUAL_MACHINE, namespace):
        return False
    # All of them: no kind is spared because an earlier one takes its time. (Events have no finalizers: they are gone
    # when this returns, and not watched.)
    return all([await _delete_all(store, kind, namespace) for kind in kinds])


async def _delete_all(store: Store, kind: Kind, namespace: str) -> bool:
    items = (await store.list(kind, namespace)).items
    for start in range(0, len(items), _AT_A_TIME):
        batch = [one for one in items[start : start + _AT_A_TIME] if not _terminating(one)]
        await asyncio.gather(*(_delete(store, kind, one) for one in batch))
    return not items or not (await store.list(kind, namespace, limit=1)).items


async def _delete(store: Store, kind: Kind, one: Stored) -> None:
    try:
        await store.delete(kind, one.namespace, one.name)
    except NotFound:
        return


def _terminating(stored: Stored) -> bool:
    return bool(stored.json()["metadata"].get("deletionTimestamp"))
