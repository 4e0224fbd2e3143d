"""``propagationPolicy=Orphan``: what an object owned stays, and belongs to nobody."""

from __future__ import annotations

import contextlib

import orjson

from carmel.errors import Conflict, NotFound
from carmel.resources.kinds import Kind
from carmel.resources.registry import KINDS
from carmel.store.protocol import PatchType, Store, Stored, WriteOptions

_ATTEMPTS = 5


async def disown(store: Store, kind: Kind, namespace: str | None, name: str, options: WriteOptions) -> None:
    """Take the references to an object out of all that it owns. Done before its deletion, so nothing is collected."""
    uid = (await store.get(kind, namespace, name)).uid
    for owned in KINDS:
        if namespace is not None and not owned.namespaced:
            continue
        for stored in (await store.list(owned, namespace)).items:
            if uid.encode() in stored.raw:
                await _release(store, stored, uid, options)


async def _release(store: Store, stored: Stored, uid: str, options: WriteOptions) -> None:
    with contextlib.suppress(NotFound):
        for _ in range(_ATTEMPTS):
            metadata = stored.json()["metadata"]
            references = metadata.get("ownerReferences") or []
            kept = [one for one in references if one.get("uid") != uid]
            if len(kept) == len(references):
                return
            change = {"ownerReferences": kept or None, "resourceVersion": stored.resource_version}
            patch = orjson.dumps({"metadata": change})
            with contextlib.suppress(Conflict):
                await store.patch(stored.kind, stored.namespace, stored.name, patch, PatchType.MERGE, options=options)
                return
            stored = await store.get(stored.kind, stored.namespace, stored.name)
        raise Conflict(f'{stored.kind.resource} "{stored.name}" changes too often to be released from its owner')
