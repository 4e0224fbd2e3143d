"""What goes by itself: tasks some time after their end, events an hour after they were last seen."""

from __future__ import annotations

import asyncio
import logging

from carmel.cancellation import end_tasks
from carmel.controllers.runtime import ControllerSpec, Key, Runtime
from carmel.controllers.runtime.clock import Timer
from carmel.errors import CarmelError
from carmel.resources.task import TASK, Task

_log = logging.getLogger(__name__)

PRUNE_SECONDS = 600.0


def add_task_expiry(runtime: Runtime) -> None:
    tasks = runtime.resources(TASK, Task, manager="task-expiry")

    async def reconcile(key: Key) -> float | None:
        task = await tasks.find(key)
        if task is None or task.status.finished_at is None or task.metadata.deletion_timestamp is not None:
            return None
        age = (runtime.clock.now() - task.status.finished_at).total_seconds()
        left = task.spec.ttl_seconds_after_finished - age
        if left > 0:
            # A clock that was set back must not keep a task for years.
            return min(left, float(task.spec.ttl_seconds_after_finished))
        await tasks.delete(task)
        return None

    runtime.add(ControllerSpec(name="task-expiry", kind=TASK, reconcile=reconcile, workers=1))


class EventExpiry:
    """Removes old events every ten minutes."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._timer: Timer | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._timer = self._runtime.clock.call_later(PRUNE_SECONDS, self._begin)

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await end_tasks(self._task)

    def _begin(self) -> None:
        self._task = asyncio.create_task(self._prune(), name="event expiry")

    async def _prune(self) -> None:
        try:
            await self._runtime.events.prune()
        except CarmelError as error:
            _log.warning("old events could not be removed: %s", error)
        self.start()
