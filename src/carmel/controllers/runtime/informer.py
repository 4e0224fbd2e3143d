"""A cache of one kind, fed by a watch, that tells what changed.

It lists, watches from the list's version, and lists again whenever the watch cannot go on (``Expired``, or any
error): the difference between what it has and the new list is told as changes, so nothing is ever missed, only
states that came and went in between.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from carmel.cancellation import end_tasks
from carmel.controllers.runtime.backoff import Backoff
from carmel.controllers.runtime.clock import Clock, sleep
from carmel.controllers.runtime.keys import Key, key_of
from carmel.errors import CarmelError, Expired
from carmel.resources.base import JsonObject
from carmel.resources.kinds import Kind
from carmel.store.protocol import EventType, Store, Stored

_log = logging.getLogger(__name__)

PAGE = 500
"""Objects a list call: large enough to be few calls, small enough not to hold up the store."""


@dataclass(frozen=True)
class Change:
    """One object changed. ``old`` is ``None`` for a new one, ``new`` for one that is gone."""

    old: Stored | None
    new: Stored | None

    @cached_property
    def states(self) -> tuple[JsonObject, ...]:
        """The object before and after, as far as there is such a state. Shared: not to be changed."""
        return tuple(one.json() for one in (self.old, self.new) if one is not None)

    @property
    def key(self) -> Key:
        stored = self.new or self.old
        if stored is None:  # pragma: no cover - not constructed
            raise ValueError("a change needs a state")
        return key_of(stored)


Listener = Callable[[Change], None]
IndexFunction = Callable[[JsonObject], Iterable[str]]


class Informer:
    """The cache of one kind. Reading it costs no call to the store; it may be a moment behind."""

    def __init__(self, store: Store, kind: Kind, clock: Clock, rng: random.Random) -> None:
        self.kind = kind
        self._store = store
        self._clock = clock
        self._rng = rng
        self._objects: dict[Key, Stored] = {}
        self._listeners: list[Listener] = []
        self._indexes: dict[str, _Index] = {}
        self._synced = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # -- reading ------------------------------------------------------------------------------------------------
    def get(self, key: Key) -> Stored | None:
        return self._objects.get(key)

    def __iter__(self) -> Iterator[Stored]:
        return iter(list(self._objects.values()))

    def __len__(self) -> int:
        return len(self._objects)

    def indexed(self, index: str, value: str) -> list[Key]:
        """The keys of the objects for which the index function named ``index`` gave ``value``."""
        return sorted(self._indexes[index].keys.get(value, ()), key=str)

    # -- wiring (before start) ----------------------------------------------------------------------------------
    def listen(self, listener: Listener) -> None:
        """Tell ``listener`` every change; those that are known already first."""
        self._listeners.append(listener)
        for stored in self._objects.values():
            listener(Change(None, stored))

    def add_index(self, name: str, function: IndexFunction) -> None:
        """Keep a reverse map: value -> keys. The same name again is the same index."""
        if name not in self._indexes:
            index = self._indexes[name] = _Index(function)
            for stored in self._objects.values():
                index.apply(Change(None, stored))

    # -- life ---------------------------------------------------------------------------------------------------
    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"informer {self.kind.plural}")

    async def synced(self) -> None:
        """Return when the first list is in the cache."""
        await self._synced.wait()

    async def stop(self) -> None:
        if self._task is not None:
            await end_tasks(self._task)
            self._task = None

    async def _run(self) -> None:
        backoff = Backoff(initial=0.2, maximum=30.0)
        failures = 0
        while True:
            try:
                since = await self._list()
                failures = 0
                await self._follow(since)
            except Expired:
                failures += 1
                if failures == 1:
                    continue
            except CarmelError as error:
                failures += 1
                _log.warning("cannot watch %s: %s", self.kind.plural, error)
            except Exception:  # noqa: BLE001 - if a bug ended the cache, all above it would wait for ever, in silence
                failures += 1
                _log.exception("watching %s failed", self.kind.plural)
            await sleep(self._clock, backoff.delay(failures, self._rng))

    async def _list(self) -> str:
        """Fill the cache; answers the version to watch from."""
        found: dict[Key, Stored] = {}
        token = ""
        while True:
            page = await self._store.list(self.kind, limit=PAGE, continue_token=token)
            found.update((key_of(stored), stored) for stored in page.items)
            if not page.continue_token:
                break
            token = page.continue_token
        for key, stored in found.items():
            self._put(key, stored)
        for key in [key for key in self._objects if key not in found]:
            self._remove(key)
        self._synced.set()
        return page.resource_version

    async def _follow(self, since: str) -> None:
        async with self._store.watch(self.kind, since=since) as events:
            async for event in events:
                if event.object is None:
                    continue
                if event.type is EventType.DELETED:
                    self._remove(key_of(event.object), event.object)
                else:
                    self._put(key_of(event.object), event.object)

    def _put(self, key: Key, stored: Stored) -> None:
        old = self._objects.get(key)
        if old is not None and old.uid == stored.uid and old.resource_version == stored.resource_version:
            return
        self._objects[key] = stored
        self._tell(Change(old, stored))

    def _remove(self, key: Key, last: Stored | None = None) -> None:
        old = self._objects.pop(key, None) or last
        if old is not None:
            self._tell(Change(old, None))

    def _tell(self, change: Change) -> None:
        for index in self._indexes.values():
            index.apply(change)
        for listener in self._listeners:
            try:
                listener(change)
            except Exception:  # noqa: BLE001 - the other listeners are still to be told
                _log.exception("a listener to %s failed for %s", self.kind.plural, change.key)


class _Index:
    def __init__(self, function: IndexFunction) -> None:
        self._function = function
        self.keys: dict[str, set[Key]] = {}

    def apply(self, change: Change) -> None:
        if change.old is not None:
            for value in self._function(change.old.json()):
                entries = self.keys.get(value)
                if entries is not None:
                    entries.discard(change.key)
                    if not entries:
                        del self.keys[value]
        if change.new is not None:
            for value in self._function(change.new.json()):
                self.keys.setdefault(value, set()).add(change.key)
