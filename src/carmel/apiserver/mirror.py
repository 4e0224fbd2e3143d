"""A small picture of some objects in memory, kept up to date by a watch.

For what every request needs (bindings, tokens): a change counts as soon as the store has told it.
"""

from __future__ import annotations

import asyncio
import logging

from carmel.cancellation import end_tasks
from carmel.errors import CarmelError, Expired
from carmel.resources.kinds import Kind
from carmel.resources.selectors import Selector
from carmel.store.protocol import EventType, Store, Stored, WatchEvent

_LOG = logging.getLogger(__name__)
_PAUSE_SECONDS = 1.0


class Mirror:
    """``objects`` maps (namespace, name) to what is stored. Rebuilt whole whenever the watch was lost."""

    def __init__(self, store: Store, kind: Kind, *, namespace: str | None = None, selector: Selector | None = None):
        self.objects: dict[tuple[str | None, str], Stored] = {}
        self.version = 0
        """Moves with every change: what was computed from ``objects`` may be cached under it."""
        self._store = store
        self._kind = kind
        self._namespace = namespace
        self._selector = selector
        self._synced = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin, and come back when the picture is complete."""
        self._task = asyncio.create_task(self._run(), name=f"mirror {self._kind.plural}")
        synced = asyncio.create_task(self._synced.wait())
        await asyncio.wait({self._task, synced}, return_when=asyncio.FIRST_COMPLETED)
        synced.cancel()
        if self._task.done():
            self._task.result()

    async def stop(self) -> None:
        if self._task is not None:
            await end_tasks(self._task)
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except Expired:
                continue
            except CarmelError as error:
                if not self._synced.is_set():
                    raise
                _LOG.warning("the watch of %s was lost: %s", self._kind.plural, error.message)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _follow(self) -> None:
        fresh: dict[tuple[str | None, str], Stored] | None = {}
        async with self._store.watch(
            self._kind, self._namespace, selector=self._selector, send_initial=True, bookmarks=True
        ) as events:
            async for event in events:
                if fresh is None:
                    self._take(self.objects, event)
                    self.version += 1
                elif event.initial_events_end:
                    self.objects, fresh = fresh, None
                    self.version += 1
                    self._synced.set()
                else:
                    self._take(fresh, event)

    @staticmethod
    def _take(objects: dict[tuple[str | None, str], Stored], event: WatchEvent) -> None:
        if event.object is None:
            return
        key = (event.object.namespace, event.object.name)
        if event.type is EventType.DELETED:
            objects.pop(key, None)
        else:
            objects[key] = event.object
