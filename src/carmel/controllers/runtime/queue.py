"""A work queue of keys: each key is in it once, and is worked on by one worker at a time.

The contract is that of client-go's ``workqueue``: a key added while it is worked on comes again when that work is
done; adding it twice is adding it once; a delayed key that is added at once comes at once, and not again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

from carmel.controllers.runtime.clock import Clock, Timer

K = TypeVar("K", bound=Hashable)


class QueueClosed(Exception):
    """There will be no more keys."""


class WorkQueue(Generic[K]):
    """For one event loop. ``get`` a key, work, ``done``."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ready: deque[K] = deque()
        self._wanted: set[K] = set()
        self._working: set[K] = set()
        self._delayed: dict[K, tuple[float, Timer]] = {}
        self._wake = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        """Keys that wait for a worker now (not those that are delayed)."""
        return len(self._ready)

    def add(self, key: K) -> None:
        if self._closed:
            return
        self._drop_delay(key)
        if key in self._wanted:
            return
        self._wanted.add(key)
        if key not in self._working:
            self._push(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Add ``key`` in ``seconds``, or earlier when it is already due earlier."""
        if seconds <= 0:
            self.add(key)
            return
        if self._closed or key in self._wanted:
            return
        due = self._clock.monotonic() + seconds
        if key in self._delayed and self._delayed[key][0] <= due:
            return
        self._drop_delay(key)
        self._delayed[key] = (due, self._clock.call_later(seconds, lambda: self.add(key)))

    async def get(self) -> K:
        """The next key, which is then worked on until ``done``. Raises ``QueueClosed``."""
        while not self._ready or self._closed:
            if self._closed:
                raise QueueClosed
            self._wake.clear()
            await self._wake.wait()
        key = self._ready.popleft()
        self._wanted.discard(key)
        self._working.add(key)
        return key

    def done(self, key: K) -> None:
        self._working.discard(key)
        if key in self._wanted and not self._closed:
            self._push(key)

    def close(self) -> None:
        """Hand out no more keys and forget the delayed ones."""
        self._closed = True
        for _, timer in self._delayed.values():
            timer.cancel()
        self._delayed.clear()
        self._wake.set()

    def _push(self, key: K) -> None:
        self._ready.append(key)
        self._wake.set()

    def _drop_delay(self, key: K) -> None:
        if (waiting := self._delayed.pop(key, None)) is not None:
            waiting[1].cancel()
