"""What the status of an image says."""

from __future__ import annotations

from dataclasses import dataclass

from carmel.controllers.image_task import ImageTasks
from carmel.controllers.runtime import (
    EventKind,
    Resources,
    Runtime,
    condition,
    error_message,
    remove_condition,
    set_conditions,
)
from carmel.errors import CarmelError
from carmel.resources.base import StatusError
from carmel.resources.catalog import ARCHITECTURE
from carmel.resources.image import IMAGE, Image, ImagePhase, ImageType
from carmel.storage.images import StoredImage


@dataclass(frozen=True, slots=True)
class ImageStatuses:
    """Writes it, and tells the image's task and its events the same."""

    runtime: Runtime
    resources: Resources[Image]
    tasks: ImageTasks

    async def show_ready(self, image: Image, stored: StoredImage) -> None:
        def change(one: Image) -> None:
            status, generation = one.status, one.metadata.generation
            status.observed_generation = generation
            status.phase = ImagePhase.READY
            status.type = stored.type
            if one.spec.source.catalog is not None or one.spec.source.build is not None:
                status.architecture = ARCHITECTURE
            status.digest = stored.origin.digest
            status.origin = stored.origin.origin
            status.format = "qcow2" if stored.type is ImageType.DISK else None
            status.virtual_size_bytes = stored.virtual_size
            status.size_bytes = stored.size
            status.command_line = stored.command_line
            status.progress_percent, status.message, status.error = 100, None, None
            ready = condition("Ready", "True", "Available", generation=generation)
            set_conditions(status, [ready], self.runtime.clock.now())

        before = image.status.phase
        await self.tasks.end(image, None)
        await self.resources.update_status(image, change)
        if before is not ImagePhase.READY:
            message = f"from {stored.origin.origin}"
            self.runtime.events.record(IMAGE, image, EventKind.NORMAL, "Available", message)

    async def show_waiting(self, image: Image) -> None:
        def change(one: Image) -> None:
            one.status.phase = ImagePhase.PENDING
            one.status.message = "waits for its bytes: carmel image import, or PUT them to its upload"
            waiting = condition("Ready", "False", "WaitingForUpload", generation=one.metadata.generation)
            set_conditions(one.status, [waiting], self.runtime.clock.now())

        await self.resources.update_status(image, change)

    async def show_in_use(self, image: Image, standing: list[str]) -> None:
        def change(one: Image) -> None:
            names = ", ".join(standing[:5]) + (f" and {len(standing) - 5} more" if len(standing) > 5 else "")
            message = f"deleted as soon as no volume stands on it: {names}"
            blocked = condition("Deletable", "False", "ImageInUse", message, generation=one.metadata.generation)
            remove_condition(one.status, "Ready")
            set_conditions(one.status, [blocked], self.runtime.clock.now())

        await self.resources.update_status(image, change)

    async def tell_error(self, image: Image, error: CarmelError) -> None:
        """Temporary errors too are seen at once: who waits for a download wants to know why it stands still."""

        def change(one: Image) -> None:
            one.status.error = StatusError(**error.to_dict())
            one.status.phase, one.status.progress_percent = ImagePhase.PENDING, None
            one.status.message = f"{error.message}; it is tried again"

        if error.retryable:
            await self.resources.update_status(image, change)
            await self.tasks.tell_error(image, error)

    async def show_error(self, image: Image, error: CarmelError) -> None:
        def change(one: Image) -> None:
            status, generation = one.status, one.metadata.generation
            status.observed_generation = generation
            status.error = StatusError(**error.to_dict())
            status.message = error.message
            if not error.retryable:
                status.phase, status.progress_percent = ImagePhase.FAILED, None
            shown = condition("Ready", "False", error.code, error_message(error), generation=generation)
            set_conditions(status, [shown], self.runtime.clock.now())

        await self.resources.update_status(image, change)
        self.runtime.events.record(IMAGE, image, EventKind.WARNING, error.code, error_message(error))
