"""A clock whose hands are turned by the test."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

START = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)


class FakeTimer:
    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """Fulfils ``controllers.runtime.Clock``."""

    def __init__(self, now: datetime = START) -> None:
        self._start = now
        self._elapsed = 0.0
        self._count = itertools.count()
        self._timers: list[tuple[float, int, FakeTimer]] = []

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        return self._elapsed

    def call_later(self, seconds: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(callback)
        heapq.heappush(self._timers, (self._elapsed + seconds, next(self._count), timer))
        return timer

    def set(self, now: datetime) -> None:
        """Somebody (or NTP) set the time of day; the monotonic clock does not care."""
        self._start = now - timedelta(seconds=self._elapsed)

    async def advance(self, seconds: float) -> None:
        """Let time pass, and let what becomes due run, each at its time."""
        end = self._elapsed + seconds
        await settle()
        while self._timers and self._timers[0][0] <= end:
            due, _, timer = heapq.heappop(self._timers)
            self._elapsed = max(self._elapsed, due)
            if timer.callback is not None:
                timer.callback()
                await settle()
        self._elapsed = end
        await settle()

    @property
    def pending(self) -> int:
        return sum(timer.callback is not None for _, _, timer in self._timers)


async def settle(rounds: int = 50) -> None:
    """Let all tasks that can run do so, as far as they wait for nothing but one another."""
    for _ in range(rounds):
        await asyncio.sleep(0)
