"""What a namespace begins with: an Image's disk, copied onto its blocks behind the passes, once and to its end."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from carmel.controllers.datastore import Datastores
from carmel.controllers.runtime import Key, Resources, Runtime
from carmel.errors import CarmelError, Conflict, Refused, Unavailable
from carmel.hardware.nvme_lookup import Space
from carmel.resources.image import IMAGE, Image, ImagePhase, ImageType
from carmel.resources.nvmenamespace import ImageReference
from carmel.storage.blockcopy import copy_onto
from carmel.storage.drive import look_at


@dataclass(slots=True)
class _Fill:
    task: asyncio.Task[None]
    stop: threading.Event
    percent: int = 0


class Fillings:
    """By the uid of the namespace. ``ended(uid)`` is called when one is through, well or not. ``root`` is where devices
    are."""

    def __init__(self, runtime: Runtime, datastores: Datastores, root: Path = Path("/")) -> None:
        self._images: Resources[Image] = runtime.resources(IMAGE, Image)
        self._datastores = datastores
        self._root = root
        self._fills: dict[str, _Fill] = {}

    async def image(self, reference: ImageReference) -> Image:
        """Raises ``Unavailable`` (``ImageMissing``, ``ImageNotReady``) and ``Refused`` (``NotADisk``)."""
        image = await self._images.find(Key(reference.namespace, reference.name))
        if image is None:
            raise Unavailable(
                f"this SmartNIC has no image {reference.namespace}/{reference.name}",
                code="ImageMissing",
                hint="carmel image import makes one of a file",
            )
        if image.status.phase is not ImagePhase.READY:
            raise Unavailable(f"the image {reference.name} is not ready", code="ImageNotReady")
        if image.status.type is not ImageType.DISK:
            raise Refused(f"the image {reference.name} is no disk", code="NotADisk", field="spec.imageRef")
        return image

    async def require_fit(self, image: Image, space: Space, *, begun: bool) -> None:
        """Raises ``Refused`` (``ImageTooLarge``) and ``Conflict`` (``NamespaceNotEmpty``): nothing is overwritten but
        what an earlier copy began."""
        size = image.status.virtual_size_bytes or 0
        if size > space.size_bytes:
            raise Refused(
                f"the image {image.metadata.name} has {size} bytes, the namespace {space.size_bytes}",
                code="ImageTooLarge",
                field="spec.imageRef",
            )
        content = await asyncio.to_thread(look_at, self._device(space))
        if not content.empty and not begun:
            raise Conflict(
                f"{space.device} is not empty: no image is copied onto it",
                code="NamespaceNotEmpty",
                hint="to show what it holds, leave spec.imageRef out; if nothing on it matters: "
                f"blkdiscard {space.device}, or overwrite its first and last MiB",
            )

    def progress(self, uid: str) -> int | None:
        """Per cent of the copy that goes on; ``None``: none does."""
        found = self._fills.get(uid)
        return None if found is None else found.percent

    def begin(self, uid: str, image: Image, space: Space, ended: Callable[[str], None]) -> None:
        stop = threading.Event()
        self._fills[uid] = fill = _Fill(asyncio.create_task(self._run(uid, image, space, stop)), stop)
        fill.task.add_done_callback(lambda _task: ended(uid))

    def outcome(self, uid: str) -> bool:
        """Whether a copy has come to its end since the last call. Raises how it failed."""
        found = self._fills.get(uid)
        if found is None or not found.task.done():
            return False
        del self._fills[uid]
        if found.task.cancelled():
            return False
        error = found.task.exception()
        if error is None:
            return True
        raise error if isinstance(error, CarmelError) else Unavailable(f"the copy broke off: {error}")

    async def stop(self, uid: str) -> None:
        found = self._fills.pop(uid, None)
        if found is not None:
            found.stop.set()
            with contextlib.suppress(CarmelError, asyncio.CancelledError):
                await found.task

    async def stop_all(self) -> None:
        for uid in list(self._fills):
            await self.stop(uid)

    async def _run(self, uid: str, image: Image, space: Space, stop: threading.Event) -> None:
        datastore = self._datastores.get(image.spec.datastore_ref.name)
        file, size = await datastore.images.open_raw(image.metadata.uid or "")

        def told(done: int) -> bool:
            if (fill := self._fills.get(uid)) is not None:
                fill.percent = 100 * done // max(1, size)
            return not stop.is_set()

        await asyncio.to_thread(_copy, file, size, self._device(space), told)

    def _device(self, space: Space) -> Path:
        return self._root / space.device.lstrip("/")


def _copy(file: BinaryIO, size: int, device: Path, told: Callable[[int], bool]) -> None:
    with file:
        if not copy_onto(file, size, device, told):
            raise Unavailable("the copy was stopped", code="CopyStopped")
