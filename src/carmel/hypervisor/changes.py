"""Tells whoever listens that a VM changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from carmel.hypervisor.machine import MachineChange


class Changes:
    """Many listeners, none of whom can be missed or hold up another: each VM waits at most once for a listener."""

    def __init__(self) -> None:
        self._listeners: set[_Listener] = set()

    def tell(self, uid: str, what: str) -> None:
        for listener in self._listeners:
            listener.add(MachineChange(uid, what))

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[AsyncIterator[MachineChange]]:
        listener = _Listener()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)


class _Listener:
    def __init__(self) -> None:
        self._waiting: dict[str, MachineChange] = {}
        self._more = asyncio.Event()

    def add(self, change: MachineChange) -> None:
        # The newest of a VM replaces an unread one: a change only says where to look.
        self._waiting.pop(change.uid, None)
        self._waiting[change.uid] = change
        self._more.set()

    def __aiter__(self) -> AsyncIterator[MachineChange]:
        return self

    async def __anext__(self) -> MachineChange:
        while not self._waiting:
            self._more.clear()
            await self._more.wait()
        return self._waiting.pop(next(iter(self._waiting)))
