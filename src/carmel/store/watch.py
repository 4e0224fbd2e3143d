"""One watch: it reads the history of a kind's table at its own pace, so a slow one costs no memory of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

import orjson

from carmel.resources.selectors import Selector
from carmel.store.memory import Change, Memory, Table
from carmel.store.protocol import EventType, Stored, WatchEvent

_CHUNK = 64
"""Events between two chances for others to run, and what is read from the history at once."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a watch is about."""

    namespace: str | None
    selector: Selector | None

    def shows(self, stored: Stored | None) -> bool:
        if stored is None or (self.namespace is not None and stored.namespace != self.namespace):
            return False
        return not self.selector or self.selector.matches(stored.json())


class Watch(AsyncIterator[WatchEvent]):
    """Changes of one table. Enter it to start; it raises ``Expired`` when it was left behind."""

    def __init__(
        self,
        memory: Memory,
        table: Table,
        scope: Scope,
        *,
        since: str | None,
        send_initial: bool,
        bookmark_seconds: float | None,
        watchers: set[Watch],
    ) -> None:
        self._memory, self._table, self._scope = memory, table, scope
        self._since, self._send_initial, self._bookmark_seconds = since, send_initial, bookmark_seconds
        self._watchers = watchers
        self._ready: deque[Stored | Change | WatchEvent] = deque()
        self._wake = asyncio.Event()
        self._revision = 0
        self._bookmarked = 0
        self._without_pause = 0
        self._closed = False

    async def __aenter__(self) -> Self:
        memory = self._memory
        self._revision = memory.revision if self._since is None else memory.position(self._since)
        if self._send_initial:
            self._revision = memory.revision
            self._ready.extend(self._table.items(self._scope.namespace))
            self._ready.append(WatchEvent(EventType.BOOKMARK, str(self._revision), initial_events_end=True))
        self._table.changes_after(self._revision, limit=0)
        self._bookmarked = self._revision
        self._watchers.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it: the iterator stops."""
        self._closed = True
        self._watchers.discard(self)
        self._wake.set()

    def notify(self) -> None:
        """There is something new in the table's history."""
        self._wake.set()

    def concerns(self, table: Table) -> bool:
        return table is self._table

    async def __anext__(self) -> WatchEvent:
        while True:
            await self._let_others_run()
            if self._closed:
                raise StopAsyncIteration
            if not self._ready:
                self._read()
            if not self._ready:
                if await self._nothing_new():
                    return self._bookmark()
                continue
            event = self._event(self._ready.popleft())
            if event is not None:
                return event

    def _event(self, ready: Stored | Change | WatchEvent) -> WatchEvent | None:
        if isinstance(ready, Change):
            return seen(ready, self._scope)
        if isinstance(ready, Stored):
            return WatchEvent(EventType.ADDED, ready.resource_version, ready) if self._scope.shows(ready) else None
        return ready

    def _read(self) -> None:
        self._wake.clear()
        changes = self._table.changes_after(self._revision, _CHUNK)
        if changes:
            self._revision = changes[-1].revision
            self._ready.extend(changes)

    async def _let_others_run(self) -> None:
        self._without_pause += 1
        if self._without_pause >= _CHUNK:
            self._without_pause = 0
            await asyncio.sleep(0)

    async def _nothing_new(self) -> bool:
        """Wait. True when it is time for a bookmark, false when there may be something to read."""
        while not self._wake.is_set():
            try:
                async with asyncio.timeout(self._bookmark_seconds):
                    await self._wake.wait()
            except TimeoutError:
                if not self._wake.is_set() and self._memory.revision != self._bookmarked:
                    return True
        return False

    def _bookmark(self) -> WatchEvent:
        self._bookmarked = self._revision = self._memory.revision
        return WatchEvent(EventType.BOOKMARK, str(self._revision))


def seen(change: Change, scope: Scope) -> WatchEvent | None:
    """How a change looks to a watcher of ``scope``; ``None`` when it does not see it at all."""
    version = str(change.revision)
    if not scope.selector:
        shown = scope.namespace is None or change.after.namespace == scope.namespace
        return WatchEvent(change.type, version, change.after) if shown else None
    was = scope.shows(change.before)
    now = change.type is not EventType.DELETED and scope.shows(change.after)
    if now:
        return WatchEvent(EventType.MODIFIED if was else EventType.ADDED, version, change.after)
    if was and change.before is not None:
        return WatchEvent(EventType.DELETED, version, at_version(change.before, version))
    return None


def at_version(stored: Stored, version: str) -> Stored:
    """The same object under another resource version."""
    body = stored.json()
    body["metadata"]["resourceVersion"] = version
    return replace(stored, resource_version=version, raw=orjson.dumps(body, option=orjson.OPT_SORT_KEYS))
