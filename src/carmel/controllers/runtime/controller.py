"""One controller: keys come from watches, passes go over them, failures come again or are shown.

A controller is level-triggered: a key says that something about an object may have changed, never what. A pass
looks at everything afresh, moves the world one step towards the spec and says when to look again at the latest.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import orjson

from carmel.controllers.runtime.backoff import Backoff, Failures
from carmel.controllers.runtime.clock import Clock, Timer
from carmel.controllers.runtime.informer import Change, Informer
from carmel.controllers.runtime.keys import Key
from carmel.controllers.runtime.metrics import ControllerMetrics
from carmel.controllers.runtime.queue import QueueClosed, WorkQueue
from carmel.errors import CarmelError, Conflict, InternalError
from carmel.resources.base import JsonObject
from carmel.resources.kinds import Kind

_log = logging.getLogger(__name__)

Reconcile = Callable[[Key], Awaitable[float | None]]
"""One pass. Answers in how many seconds to look again, or ``None``: when something changes."""

OnFailure = Callable[[Key, CarmelError, int], Awaitable[None]]
"""Told of failures that are worth showing: key, error, how many in a row."""

SHOWN_AFTER = 3
"""A temporary failure is shown from this many in a row on: before, it most likely passes unnoticed."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Another kind whose changes concern this controller's objects: ``keys`` says which."""

    kind: Kind
    keys: Callable[[JsonObject], Iterable[Key]]


@dataclass(frozen=True, slots=True)
class ControllerSpec:
    """What a controller is. ``workers`` is how many keys are worked on at a time, each by one worker.

    ``resync_seconds``: all keys come again that often, whatever happened (0: never). ``accepts`` is asked for
    each state of an object of ``kind``: what it refuses is not this controller's business.
    ``retry_permanent_seconds``: after an error that time alone does not mend, look again that much later all the
    same: somebody may have installed what was missing (0: only at a change or resync).
    """

    name: str
    kind: Kind
    reconcile: Reconcile
    watches: tuple[Watch, ...] = ()
    accepts: Callable[[JsonObject], bool] | None = None
    workers: int = 4
    resync_seconds: float = 1800.0
    retry_permanent_seconds: float = 0.0
    backoff: Backoff = field(default_factory=Backoff)
    on_failure: OnFailure | None = None


class Controller:
    """Runs a ``ControllerSpec``."""

    def __init__(self, spec: ControllerSpec, informers: Callable[[Kind], Informer], clock: Clock, rng: random.Random):
        self.spec = spec
        self.metrics = ControllerMetrics(spec.name)
        self._clock = clock
        self._rng = rng
        self._queue: WorkQueue[Key] = WorkQueue(clock)
        self._failures: Failures[Key] = Failures(spec.backoff, rng)
        self._said: dict[Key, str] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._resync_timer: Timer | None = None
        self._primary = informers(spec.kind)
        self._primary.listen(self._on_primary)
        for watch in spec.watches:
            informers(watch.kind).listen(functools.partial(self._on_other, watch.keys))

    def enqueue(self, key: Key) -> None:
        """Something outside the store happened: look at ``key``."""
        self._queue.add(key)

    def enqueue_after(self, key: Key, seconds: float) -> None:
        """The same in a while, so that what comes until then is one pass."""
        self._queue.add_after(key, seconds)

    def start(self) -> None:
        self._workers = [
            asyncio.create_task(self._work(), name=f"{self.spec.name} worker {number}")
            for number in range(self.spec.workers)
        ]
        self._schedule_resync()

    async def stop(self, grace_seconds: float) -> None:
        """No new pass begins; those in flight may end within ``grace_seconds`` and are then cancelled."""
        self._queue.close()
        if self._resync_timer is not None:
            self._resync_timer.cancel()
        if not self._workers:
            return
        _, late = await asyncio.wait(self._workers, timeout=grace_seconds)
        for task in late:
            task.cancel()
        for task in self._workers:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._workers = []

    # -- where keys come from -----------------------------------------------------------------------------------
    def _on_primary(self, change: Change) -> None:
        if not _worth_a_look(change):
            return
        accepts = self.spec.accepts
        if accepts is None or any(accepts(state) for state in change.states):
            self._queue.add(change.key)

    def _on_other(self, keys: Callable[[JsonObject], Iterable[Key]], change: Change) -> None:
        for state in change.states:
            for key in keys(state):
                self._queue.add(key)

    def _schedule_resync(self) -> None:
        if self.spec.resync_seconds > 0:
            # Jitter, so that the controllers of a small host do not all work at the same moment.
            seconds = self.spec.resync_seconds * (0.9 + 0.2 * self._rng.random())
            self._resync_timer = self._clock.call_later(seconds, self._resync)

    def _resync(self) -> None:
        for stored in self._primary:
            self._on_primary(Change(None, stored))
        self._schedule_resync()

    # -- what is done with them ---------------------------------------------------------------------------------
    async def _work(self) -> None:
        with contextlib.suppress(QueueClosed):
            while True:
                key = await self._queue.get()
                try:
                    await self._pass(key)
                finally:
                    self._queue.done(key)
                    self.metrics.queue_length = len(self._queue)

    async def _pass(self, key: Key) -> None:
        began = self._clock.monotonic()
        error: CarmelError | None = None
        again: float | None = None
        try:
            again = await self.spec.reconcile(key)
        except CarmelError as raised:
            error = raised
        except Exception as raised:  # noqa: BLE001 - a bug in one pass must not end the worker
            _log.exception("%s %s: a pass failed", self.spec.name, key)
            error = InternalError(f"{type(raised).__name__}: {raised}", retryable=True)
        self.metrics.observe(self._clock.monotonic() - began, failed=error is not None)
        if error is not None:
            await self._failed(key, error)
            return
        self._failures.forget(key)
        self._said.pop(key, None)
        if again is not None:
            self._queue.add_after(key, again)

    async def _failed(self, key: Key, error: CarmelError) -> None:
        delay = self._failures.add(key)
        count = self._failures.count(key)
        temporary = error.retryable or isinstance(error, Conflict)
        if temporary:
            self._queue.add_after(key, delay)
        elif self.spec.retry_permanent_seconds > 0:
            self._queue.add_after(key, self.spec.retry_permanent_seconds)
        if temporary and count < SHOWN_AFTER:
            _log.debug("%s %s: %s (again in %.1f s)", self.spec.name, key, error, delay)
            return
        said, self._said[key] = self._said.get(key), str(error)
        # What is tried every few seconds is told once, not each time.
        _log.log(logging.DEBUG if said == str(error) else logging.WARNING, "%s %s: %s", self.spec.name, key, error)
        if self.spec.on_failure is not None:
            try:
                await self.spec.on_failure(key, error, count)
            except CarmelError as second:
                _log.warning("%s %s: the failure could not be shown: %s", self.spec.name, key, second)
                self._queue.add_after(key, delay)


def _worth_a_look(change: Change) -> bool:
    """Not when conditions alone changed: they say what passes found, and a failure that is shown must not be the
    reason to try, and fail, at once again."""
    return change.old is None or change.new is None or len({_without_conditions(one) for one in change.states}) > 1


def _without_conditions(obj: JsonObject) -> bytes:
    metadata = {key: value for key, value in obj["metadata"].items() if key not in {"resourceVersion", "managedFields"}}
    status = {key: value for key, value in (obj.get("status") or {}).items() if key != "conditions"}
    return orjson.dumps({**obj, "metadata": metadata, "status": status}, option=orjson.OPT_SORT_KEYS)
