"""The store's protocol, which is Kubernetes' own contract: SQLite on one host, a kube-apiserver in a cluster.

What every store promises (one contract suite runs against each):

* what a call has answered is there afterwards, whatever happens to the process or the machine;
* a write to the subresource ``status`` changes the status alone, any other write leaves the status as it is;
* ``generation`` moves when anything but metadata and status changes;
* a write that changes nothing keeps the ``resourceVersion``;
* a write that names an older ``resourceVersion`` is a ``Conflict``; one that names none always applies;
* a watch that starts from a list's ``resource_version`` misses nothing and repeats nothing;
* a ``resource_version`` or continue token that is too old is ``Expired``, in the middle of a watch too;
* resource versions are opaque: compare them for equality only.

Every write goes through ``resources.admission``: nobody, controllers included, stores what is not valid.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import orjson

from carmel.resources.base import JsonObject
from carmel.resources.kinds import Kind
from carmel.resources.selectors import Selector


@dataclass(frozen=True, slots=True)
class Stored:
    """One object as it is stored. ``raw`` is its whole JSON in UTF-8, ready to be sent.

    Immutable, so that one value can be shared by caches, watchers and lists.
    """

    kind: Kind
    namespace: str | None
    name: str
    uid: str
    resource_version: str
    raw: bytes

    def json(self) -> JsonObject:
        """A fresh parse of ``raw``: the caller may change it."""
        parsed: JsonObject = orjson.loads(self.raw)
        return parsed


@dataclass(frozen=True, slots=True)
class Page:
    """A list at one moment, or a part of it. ``continue_token`` is empty on the last part."""

    items: Sequence[Stored]
    resource_version: str
    continue_token: str = ""
    remaining: int | None = None


class EventType(StrEnum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"
    BOOKMARK = "BOOKMARK"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """A change. ``object`` is the state after it, or the last one before a deletion, with the deletion's version.

    A bookmark has no object: it says that everything up to ``resource_version`` has been told. With
    ``initial_events_end`` it closes the initial objects of a watch that began with ``send_initial``.
    For a watcher with a selector, an object that begins to match is ADDED and one that ends to match is DELETED.
    """

    type: EventType
    resource_version: str
    object: Stored | None = None
    initial_events_end: bool = False


class PatchType(StrEnum):
    """The patch formats of the Kubernetes API, by content type."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


class FieldValidation(StrEnum):
    """What to do about fields that the schema does not know: drop, drop and warn, or refuse."""

    IGNORE = "Ignore"
    WARN = "Warn"
    STRICT = "Strict"


@dataclass(slots=True)
class WriteOptions:
    """How to write. ``manager`` is the field manager that the written fields then belong to.

    ``warnings`` is filled by the store: one sentence for each field it dropped under ``WARN``.
    """

    manager: str = "carmeld"
    dry_run: bool = False
    field_validation: FieldValidation = FieldValidation.IGNORE
    force: bool = False
    """Server-side apply only: take fields over from other managers instead of a ``Conflict``."""
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Preconditions:
    """A delete applies only to this very object, or this very version of it, else ``Conflict``."""

    uid: str | None = None
    resource_version: str | None = None


class Store(Protocol):
    """Reads and writes resources. All methods are for one event loop; none of them blocks it.

    ``subresource`` is ``""``, ``"status"`` or, for Namespaces, ``"finalize"`` (writes ``spec.finalizers`` alone).
    Errors: ``NotFound``, ``AlreadyExists``, ``Conflict``, ``Invalid``, ``Expired``, ``TooLarge``,
    ``InsufficientStorage`` (the disk is full: nothing was changed), ``Unavailable``.
    """

    async def create(self, kind: Kind, body: JsonObject, options: WriteOptions | None = None) -> Stored:
        """Store a new object. ``metadata.generateName`` gives it a random name; a missing namespace is ``NotFound``,
        one that is being deleted ``Forbidden``."""
        ...

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Stored: ...

    async def list(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        selector: Selector | None = None,
        limit: int = 0,
        continue_token: str = "",
    ) -> Page:
        """All objects (of one namespace, or of all with ``None``), ordered by namespace and name.

        ``limit`` 0 is no limit. A continue token lists on from the same moment, or raises ``Expired``.
        """
        ...

    async def replace(
        self, kind: Kind, body: JsonObject, *, subresource: str = "", options: WriteOptions | None = None
    ) -> Stored:
        """Store a whole object in place of the one of its name. ``metadata.resourceVersion`` and ``uid``, where
        given, must be the stored ones. Taking the last finalizer from an object that is being deleted removes it."""
        ...

    async def patch(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        patch: bytes,
        patch_type: PatchType,
        *,
        subresource: str = "",
        options: WriteOptions | None = None,
    ) -> Stored:
        """Change a stored object by ``patch``. ``APPLY`` creates it when it is not there."""
        ...

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        *,
        preconditions: Preconditions | None = None,
        dry_run: bool = False,
    ) -> Stored:
        """Remove an object, or mark it with ``deletionTimestamp`` while it has finalizers. Answers its last state."""
        ...

    def watch(
        self,
        kind: Kind,
        namespace: str | None = None,
        *,
        since: str | None = None,
        selector: Selector | None = None,
        send_initial: bool = False,
        bookmarks: bool = False,
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent]]:
        """Changes after ``since`` (a list's or object's resource version), or from now on with ``None``.

        ``send_initial`` begins with an ADDED for every object there is, then a bookmark with
        ``initial_events_end``. A watcher that does not keep up, or whose ``since`` was compacted away, gets
        ``Expired`` from its iterator. Leaving the context ends the watch.
        """
        ...

    async def close(self) -> None:
        """End all watches and close the files."""
        ...
