"""Images: brought into their datastore behind, told how far they are, removed when no volume stands on them.

A pass looks at the datastore first: an image that is in its place is ready, whatever else is known of it. One that is
not, and is not being worked on, is begun (again): that is all that starting anew after a kill takes.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from carmel.cancellation import end_tasks
from carmel.controllers.datastore import Datastores, OpenDatastore
from carmel.controllers.image_source import Gathered, ImageSources
from carmel.controllers.image_status import ImageStatuses
from carmel.controllers.image_task import CANCELLED, ImageTasks, image_of, task_key
from carmel.controllers.runtime import (
    Backoff,
    Controller,
    ControllerSpec,
    Key,
    Resources,
    Runtime,
    Watch,
    key_of,
    sleep,
)
from carmel.controllers.runtime.backoff import Failures
from carmel.controllers.runtime.controller import SHOWN_AFTER
from carmel.errors import CarmelError, InsufficientStorage, InternalError, Refused
from carmel.resources.base import JsonObject
from carmel.resources.datastore import DATASTORE
from carmel.resources.image import IMAGE, Image, ImagePhase
from carmel.resources.task import TASK
from carmel.resources.volume import VOLUME, Volume

FINALIZER = "carmel.dev/image"
PROGRESS_SECONDS = 2.0
"""Progress is written to the image and to its task, each at most once in this time."""

AT_A_TIME = 2
"""Images that are downloaded, built or converted at a time: each may keep a core busy."""


@dataclass(slots=True)
class _Progress:
    phase: ImagePhase = ImagePhase.PENDING
    percent: int | None = None
    message: str = ""


@dataclass(slots=True)
class _Work:
    """What goes on behind for one image, by uid."""

    task: asyncio.Task[None]
    error: CarmelError | None = None


class ImageController:
    def __init__(self, runtime: Runtime, datastores: Datastores, sources: ImageSources) -> None:
        self._runtime = runtime
        self._datastores = datastores
        self._sources = sources
        self._resources: Resources[Image] = runtime.resources(IMAGE, Image, manager="image-controller")
        self._volumes = runtime.resources(VOLUME, Volume)
        self._tasks = ImageTasks(runtime)
        self._statuses = ImageStatuses(runtime, self._resources, self._tasks)
        self._works: dict[str, _Work] = {}
        self._failures: Failures[str] = Failures(Backoff(), runtime.rng)
        self._not_before: dict[str, float] = {}
        self._places = asyncio.Semaphore(AT_A_TIME)
        self._stopping = False
        images = runtime.informer(IMAGE)
        images.add_index("datastore", lambda image: [image["spec"]["datastoreRef"]["name"]])
        self._controller: Controller = runtime.add(
            ControllerSpec(
                "image",
                IMAGE,
                self.reconcile,
                watches=(
                    Watch(TASK, image_of),
                    Watch(VOLUME, _image_under),
                    Watch(DATASTORE, lambda store: images.indexed("datastore", store["metadata"]["name"])),
                ),
                on_failure=self._show,
            )
        )

    async def stop(self) -> None:
        """End what goes on behind and begin nothing more; a later daemon takes it up again."""
        self._stopping = True
        works = list(self._works.values())
        await end_tasks(*(work.task for work in works))
        self._works.clear()

    def look_again(self, key: Key) -> None:
        """Something outside the store happened to this image: an upload is whole."""
        self._controller.enqueue(key)

    async def reconcile(self, key: Key) -> float | None:
        image = await self._resources.find(key)
        if image is None:
            return None
        if image.metadata.deletion_timestamp is not None:
            return await self._delete(image)
        image = await self._resources.add_finalizer(image, FINALIZER)
        uid = _uid(image)
        datastore = self._datastores.get(image.spec.datastore_ref.name)
        stored = await asyncio.to_thread(datastore.images.find, uid)
        if stored is not None and (uid not in self._works or self._works[uid].task.done()):
            self._works.pop(uid, None)
            self._forget(uid)
            await self._statuses.show_ready(image, stored)
            return None
        if image.status.phase is ImagePhase.FAILED and uid not in self._works:
            return None
        if image.status.phase is ImagePhase.READY:
            raise Refused(
                "the image's files are not there any more",
                code="ImageMissing",
                hint="bring them back into the datastore, or delete the image and make it again",
            )
        return await self._work_on(image, datastore)

    # -- what goes on behind ------------------------------------------------------------------------------------
    async def _work_on(self, image: Image, datastore: OpenDatastore) -> float | None:
        if self._stopping:
            return None
        uid = _uid(image)
        if await self._tasks.cancel_requested(image):
            await self._end_work(uid)
            await datastore.directory.remove_download(uid)
            raise Refused("it was cancelled", code=CANCELLED, hint="delete the image and make it again")
        work = self._works.get(uid)
        if work is not None:
            if not work.task.done():
                return None
            del self._works[uid]
            if work.error is not None:
                return await self._failed(image, work.error)
        pause = self._not_before.get(uid, 0.0) - self._runtime.clock.monotonic()
        if pause > 0:
            return pause
        if image.spec.source.upload is not None:
            gathered = Gathered(datastore.directory.download(uid))
            if not gathered.whole.exists():
                if image.status.phase is None:
                    await self._statuses.show_waiting(image)
                return None
        await self._tasks.begin(image)

        def change(one: Image) -> None:
            one.status.task_name = task_key(image).name

        image = await self._resources.update_status(image, change)
        if not self._stopping:
            self._begin(image, datastore)
        return None

    async def _failed(self, image: Image, error: CarmelError) -> float:
        """When to begin again. The pass that begins the work ends well, so the runtime would never back off."""
        uid = _uid(image)
        if not error.retryable:
            self._forget(uid)
            raise error
        delay = self._failures.add(uid)
        self._not_before[uid] = self._runtime.clock.monotonic() + delay
        await self._statuses.tell_error(image, error)
        if (count := self._failures.count(uid)) >= SHOWN_AFTER:
            await self._show(key_of(image), error, count)
        return delay

    def _forget(self, uid: str) -> None:
        self._failures.forget(uid)
        self._not_before.pop(uid, None)

    def _begin(self, image: Image, datastore: OpenDatastore) -> None:
        key = key_of(image)

        async def run() -> None:
            progress = _Progress()

            def told(phase: ImagePhase, percent: int | None, message: str) -> None:
                progress.phase, progress.percent, progress.message = phase, percent, message

            writer = asyncio.create_task(self._write_progress(image, progress), name=f"image {key} progress")
            try:
                async with self._places:
                    await self._sources.bring(image, datastore, told)
            except CarmelError as error:
                # Room is made by people, and who uploads waits for an answer; a download can wait for room.
                uploaded = image.spec.source.upload is not None
                error.retryable = error.retryable and not (uploaded and isinstance(error, InsufficientStorage))
                work.error = error
            except Exception as error:  # noqa: BLE001 - shown as a bug of ours; the controller must go on
                work.error = InternalError(f"{type(error).__name__}: {error}")
            finally:
                await end_tasks(writer)
                self._controller.enqueue(key)

        work = _Work(asyncio.create_task(run(), name=f"image {key}"))
        self._works[_uid(image)] = work

    async def _end_work(self, uid: str) -> None:
        work = self._works.pop(uid, None)
        if work is not None:
            await end_tasks(work.task)

    async def _write_progress(self, image: Image, progress: _Progress) -> None:
        while True:
            # A moment for the first word, so that the phase is right from the first write on.
            await sleep(self._runtime.clock, PROGRESS_SECONDS if progress.message else 0.1)

            def change(one: Image) -> None:
                status = one.status
                status.phase, status.progress_percent = progress.phase, progress.percent
                status.message, status.error = progress.message or None, None

            with contextlib.suppress(CarmelError):
                await self._resources.update_status(image, change)
                await self._tasks.progress(image, progress.percent, progress.message)

    # -- the end ------------------------------------------------------------------------------------------------
    async def _delete(self, image: Image) -> float | None:
        uid = _uid(image)
        await self._end_work(uid)
        self._forget(uid)
        standing = [
            volume.metadata.name
            for volume in await self._volumes.list(image.metadata.namespace)
            if volume.status.image_uid == uid
        ]
        if standing:
            await self._statuses.show_in_use(image, standing)
            return None
        datastore = self._datastores.get(image.spec.datastore_ref.name)
        await datastore.directory.remove_image(uid)
        await self._tasks.end(image, Refused("the image was deleted", code=CANCELLED))
        await self._resources.remove_finalizer(image, FINALIZER)
        return None

    async def _show(self, key: Key, error: CarmelError, _count: int) -> None:
        image = await self._resources.find(key)
        if image is None:
            return
        if not error.retryable:
            await self._tasks.end(image, error)
            if (datastore := self._datastores.find(image.spec.datastore_ref.name)) is not None:
                await datastore.directory.remove_download(_uid(image))
        await self._statuses.show_error(image, error)


def _uid(image: Image) -> str:
    if image.metadata.uid is None:
        raise InternalError(f"the image {image.metadata.name} has no uid")
    return image.metadata.uid


def _image_under(volume: JsonObject) -> list[Key]:
    reference = volume["spec"].get("imageRef")
    return [Key(volume["metadata"].get("namespace"), reference["name"])] if reference else []
