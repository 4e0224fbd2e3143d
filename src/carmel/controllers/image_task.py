"""The Task that tells how far an image is, and by which its user may end the work on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from carmel.controllers.image_source import verb
from carmel.controllers.runtime import Clock, Key, Resources, Runtime
from carmel.errors import AlreadyExists, CarmelError
from carmel.paths import short_hash
from carmel.resources.base import JsonObject, ObjectMeta, OwnerReference, StatusError
from carmel.resources.image import IMAGE, Image
from carmel.resources.task import TASK, Task, TaskPhase, TaskSpec, TaskTarget

CANCELLED = "Cancelled"
_ENDED = (TaskPhase.SUCCEEDED, TaskPhase.FAILED, TaskPhase.CANCELLED)


def task_key(image: Image) -> Key:
    """An image has one task, named after its uid: found again by a daemon that starts anew."""
    return Key(image.metadata.namespace, f"image-{short_hash(image.metadata.uid or '')}")


def image_of(task: JsonObject) -> Iterable[Key]:
    target = task["spec"]["target"]
    return [Key(task["metadata"].get("namespace"), target["name"])] if target["kind"] == IMAGE.kind else []


class ImageTasks:
    """Writes images' Tasks."""

    def __init__(self, runtime: Runtime) -> None:
        self._tasks: Resources[Task] = runtime.resources(TASK, Task, manager="image-controller")
        self._clock: Clock = runtime.clock

    async def cancel_requested(self, image: Image) -> bool:
        task = await self._tasks.find(task_key(image))
        return task is not None and task.spec.cancel_requested

    async def begin(self, image: Image) -> None:
        task = await self._tasks.find(task_key(image)) or await self._create(image)

        def change(one: Task) -> None:
            one.status.phase = TaskPhase.RUNNING
            one.status.started_at = one.status.started_at or self._now()
            one.status.finished_at = None

        await self._tasks.update_status(task, change)

    async def progress(self, image: Image, percent: int | None, message: str) -> None:
        def change(one: Task) -> None:
            if one.status.phase not in _ENDED:
                one.status.progress_percent, one.status.message = percent, message

        await self._change(image, change)

    async def tell_error(self, image: Image, error: CarmelError) -> None:
        """It failed, but is tried again."""

        def change(one: Task) -> None:
            one.status.error = StatusError(**error.to_dict())

        await self._change(image, change)

    async def end(self, image: Image, error: CarmelError | None) -> None:
        """The first end counts."""

        def change(one: Task) -> None:
            if one.status.phase in _ENDED:
                return
            status = one.status
            status.finished_at = self._now()
            status.error = None if error is None else StatusError(**error.to_dict())
            if error is None:
                status.phase, status.progress_percent, status.message = TaskPhase.SUCCEEDED, 100, "done"
            else:
                status.phase = TaskPhase.CANCELLED if error.code == CANCELLED else TaskPhase.FAILED
                status.message = error.message

        await self._change(image, change)

    async def _change(self, image: Image, change: Callable[[Task], object]) -> None:
        task = await self._tasks.find(task_key(image))
        if task is not None:
            await self._tasks.update_status(task, change)

    async def _create(self, image: Image) -> Task:
        key = task_key(image)
        meta = image.metadata
        owner = OwnerReference(
            api_version=IMAGE.api_version, kind=IMAGE.kind, name=meta.name, uid=meta.uid or "", controller=True
        )
        target = TaskTarget(kind=IMAGE.kind, name=meta.name, uid=meta.uid)
        task = Task(
            metadata=ObjectMeta(name=key.name, namespace=key.namespace, owner_references=[owner]),
            spec=TaskSpec(target=target, verb=verb(image)),
        )
        try:
            return await self._tasks.create(task)
        except AlreadyExists:
            return await self._tasks.get(key)

    def _now(self) -> datetime:
        return self._clock.now().replace(microsecond=0)
