"""Devices that a guest was asked to let go of, and who waits for that."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterator

from carmel.errors import CarmelError


class Departures:
    """One waiter a device, by QEMU's id of it."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[None]] = {}

    @property
    def watched(self) -> Collection[str]:
        """The devices that are waited for."""
        return self._waiting.keys()

    @contextlib.contextmanager
    def watch(self, name: str) -> Iterator[asyncio.Future[None]]:
        """Done when the device is gone; it fails when that will never be told."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[name] = future
        try:
            yield future
        finally:
            del self._waiting[name]
            future.cancel()

    def gone(self, name: str) -> bool:
        """A device is gone. Whether somebody waited for it."""
        future = self._waiting.get(name)
        if future is None or future.done():
            return False
        future.set_result(None)
        return True

    def give_up(self, error: CarmelError) -> None:
        """Nothing will be told any more: the VM ends."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)
                # Not everybody who watches gets to wait.
                future.exception()
