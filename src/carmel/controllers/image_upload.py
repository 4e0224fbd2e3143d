"""Takes an image's bytes from the API server and keeps them until the image's controller converts them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from carmel.controllers.datastore import Datastores, OpenDatastore
from carmel.controllers.image import ImageController
from carmel.controllers.image_source import Gathered
from carmel.controllers.runtime import Key, Resources, Runtime
from carmel.errors import Conflict, InsufficientStorage, Refused, Unavailable
from carmel.resources.image import IMAGE, Image, ImagePhase
from carmel.storage.datastore import RESERVE_BYTES
from carmel.storage.files import explained
from carmel.storage.images import Origin
from carmel.units import MIB, human_bytes

_PART = "received"
_LOOK_BYTES = 32 * MIB
"""How often the free space is looked at: small enough not to eat up the reserve in between."""


class ImageUploads:
    """One upload an image at a time. A broken one is begun anew: HTTP has no way to go on with a PUT."""

    def __init__(self, runtime: Runtime, datastores: Datastores, controller: ImageController) -> None:
        self._resources: Resources[Image] = runtime.resources(IMAGE, Image, manager="image-upload")
        self._datastores = datastores
        self._controller = controller
        self._receiving: set[str] = set()

    async def receive(
        self, namespace: str, name: str, chunks: AsyncIterator[bytes], total_bytes: int | None = None
    ) -> None:
        """Take all of ``chunks`` for image ``name``. When this returns they are kept, also over a power cut.

        Raises ``NotFound``, ``Refused`` (``NotAnUpload``, ``UploadEmpty``), ``Conflict`` (``ImageHasBytes``,
        ``UploadInProgress``), ``InsufficientStorage``, ``Unavailable`` (``UploadIncomplete``); nothing is kept then.
        """
        key = Key(namespace, name)
        image = await self._resources.get(key)
        uid = image.metadata.uid or ""
        if image.spec.source.upload is None:
            raise Refused(
                f"the image {name} does not come from an upload",
                code="NotAnUpload",
                hint="make an image with spec.source.upload",
            )
        datastore = self._datastores.get(image.spec.datastore_ref.name)
        gathered = Gathered(datastore.directory.download(uid))
        ended = image.status.phase in (ImagePhase.READY, ImagePhase.FAILED)
        if ended or image.metadata.deletion_timestamp is not None or gathered.whole.exists():
            raise Conflict(
                f"the image {name} has got its bytes, or has ended",
                code="ImageHasBytes",
                hint="an image cannot be changed: delete it, or make another one",
            )
        if uid in self._receiving:
            raise Conflict(f"another upload to the image {name} is under way", code="UploadInProgress")
        self._receiving.add(uid)
        try:
            await self._receive(image, datastore, gathered, chunks, total_bytes)
        finally:
            self._receiving.discard(uid)
            self._controller.look_again(key)

    async def _receive(
        self,
        image: Image,
        datastore: OpenDatastore,
        gathered: Gathered,
        chunks: AsyncIterator[bytes],
        total: int | None,
    ) -> None:
        await asyncio.to_thread(_require_room, datastore, total or 0)
        await self._show(image, ImagePhase.UPLOADING, "receiving")
        part = gathered.directory / _PART
        try:
            digest, size = await self._write(part, datastore, chunks)
            _require_whole(size, total)
            await asyncio.to_thread(gathered.finish, part, Origin("upload", f"sha256:{digest}"))
        except BaseException:
            await asyncio.shield(asyncio.to_thread(part.unlink, missing_ok=True))
            await self._show(image, ImagePhase.PENDING, "the upload broke off: send it again")
            raise

    async def _write(self, part: Path, datastore: OpenDatastore, chunks: AsyncIterator[bytes]) -> tuple[str, int]:
        hasher = hashlib.sha256()
        size = looked = 0

        def write(file: BinaryIO, chunk: bytes) -> None:
            with explained("keep what was received"):
                file.write(chunk)
            hasher.update(chunk)

        with explained("keep what was received"):
            file = await asyncio.to_thread(part.open, "wb")
        try:
            async for chunk in chunks:
                await asyncio.to_thread(write, file, chunk)
                size += len(chunk)
                if size - looked >= _LOOK_BYTES:
                    looked = size
                    await asyncio.to_thread(_require_room, datastore, 0)
        finally:
            with explained("keep what was received"):
                await asyncio.to_thread(file.close)
        return hasher.hexdigest(), size

    async def _show(self, image: Image, phase: ImagePhase, message: str) -> None:
        def change(one: Image) -> None:
            if one.status.phase not in (ImagePhase.READY, ImagePhase.FAILED):
                one.status.phase, one.status.message = phase, message

        await self._resources.update_status(image, change)


def _require_whole(size: int, total: int | None) -> None:
    if size == 0:
        raise Refused("the upload was empty", code="UploadEmpty")
    if total is not None and size != total:
        raise Unavailable(
            f"{size} bytes came where {total} were announced", code="UploadIncomplete", hint="send it again"
        )


def _require_room(datastore: OpenDatastore, size: int) -> None:
    free = datastore.directory.capacity().free_bytes
    if size + RESERVE_BYTES > free:
        raise InsufficientStorage(
            f"the upload does not fit: {human_bytes(max(free - RESERVE_BYTES, 0))} are free in the datastore",
            code="DiskFull",
            hint="free some space there, or use another datastore",
        )
