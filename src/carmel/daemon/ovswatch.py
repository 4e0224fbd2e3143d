"""Sees to it that Open vSwitch goes on switching: what it lost is put back, what hangs is started again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from carmel.cancellation import end_tasks
from carmel.controllers.runtime.clock import Clock, sleep
from carmel.errors import CarmelError
from carmel.network.ovs.health import Trouble

_log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
"""At the file that says when ovs-vswitchd was started: it costs nothing."""
_LOOKS_A_CHECK = 10
_RESTART_SECONDS = 60.0
"""At most one in this time."""


class Examined(Protocol):
    """What is looked at: see ``network.ovs.health.Health``."""

    def start_of_vswitchd(self) -> object | None: ...

    async def look(self) -> Trouble | None: ...

    async def is_ours_to_restart(self) -> bool: ...

    async def restart(self) -> None: ...


class OvsWatch:
    """``restore`` puts back what was lost; ``tell`` is told of trouble, and of its end. ``start``, then ``stop``."""

    def __init__(
        self,
        clock: Clock,
        health: Examined,
        restore: Callable[[], Awaitable[None]],
        tell: Callable[[Trouble | None], None],
    ) -> None:
        self._clock = clock
        self._health = health
        self._restore = restore
        self._tell = tell
        self._trouble: Trouble | None = None
        self._seen = health.start_of_vswitchd()
        self._lost = False
        self._restarted: float | None = None
        self._task: asyncio.Task[None] | None = None

    def lost(self) -> None:
        """Something is to be put back, though no new start was seen."""
        self._lost = True

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="Open vSwitch")

    async def stop(self) -> None:
        await end_tasks(self._task)

    async def _run(self) -> None:
        looks = 0
        while True:
            await sleep(self._clock, _LOOK_SECONDS)
            looks += 1
            try:
                await self.look(thoroughly=looks % _LOOKS_A_CHECK == 0)
            except CarmelError as error:
                self._set(Trouble(error.code, error.message))

    async def look(self, *, thoroughly: bool) -> None:
        """Once. Raises ``CarmelError``."""
        started = self._health.start_of_vswitchd()
        if started is not None and (started != self._seen or self._lost):
            self._lost = True
            self._seen = started
            await self._restore()
            self._lost = False
            self._set(None)
        if not thoroughly:
            return
        trouble = await self._health.look()
        if trouble is not None and trouble.heals:
            trouble = await self._heal(trouble)
        self._set(trouble)

    async def _heal(self, trouble: Trouble) -> Trouble:
        now = self._clock.monotonic()
        if self._restarted is not None and now - self._restarted < _RESTART_SECONDS:
            return trouble
        if not await self._health.is_ours_to_restart():
            return Trouble(trouble.reason, f"{trouble.message}. Start it again: systemctl restart ovs-vswitchd")
        self._restarted = now
        _log.warning("%s: ovs-vswitchd is started again", trouble.message)
        await self._health.restart()
        return Trouble(trouble.reason, f"{trouble.message}. It was started again")

    def _set(self, trouble: Trouble | None) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._tell(trouble)
