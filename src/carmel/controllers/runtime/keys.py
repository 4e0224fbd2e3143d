"""What a controller works on: the name of an object, never the object, which may have changed since."""

from __future__ import annotations

from typing import NamedTuple

from carmel.resources.base import JsonObject, Resource
from carmel.resources.kinds import Kind
from carmel.store.protocol import Stored


class Key(NamedTuple):
    """``namespace`` is ``None`` for cluster-wide kinds."""

    namespace: str | None
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def key_of(obj: Resource | Stored) -> Key:
    if isinstance(obj, Stored):
        return Key(obj.namespace, obj.name)
    return Key(obj.metadata.namespace, obj.metadata.name)


def owners_of_kind(kind: Kind, obj: JsonObject) -> list[Key]:
    """The owners of ``obj`` that are of ``kind``, in ``obj``'s own namespace (owners cannot be elsewhere)."""
    metadata = obj.get("metadata") or {}
    namespace = metadata.get("namespace") if kind.namespaced else None
    return [
        Key(namespace, reference["name"])
        for reference in metadata.get("ownerReferences") or []
        if reference.get("kind") == kind.kind and reference.get("apiVersion") == kind.api_version
    ]
