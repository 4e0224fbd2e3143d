"""What all requests of one server share: the sign to stop, and how many may do costly things at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from carmel.errors import TooManyRequests


class Places:
    """A counted number of places; who finds none is told to come back."""

    def __init__(self, what: str, limit: int) -> None:
        self.taken = 0
        self._what = what
        self._limit = limit

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place for as long as the context lasts. Raises ``TooManyRequests``."""
        if self.taken >= self._limit:
            raise TooManyRequests(f"there are {self.taken} {self._what} open, and no more are taken")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


class Shared:
    """``stopping`` is set once, when the server begins to stop: whoever streams ends then."""

    def __init__(self, *, max_watches: int = 1024, max_streams: int = 64) -> None:
        self.stopping = asyncio.Event()
        self.watches = Places("watches", max_watches)
        self.streams = Places("consoles, logs and uploads", max_streams)
