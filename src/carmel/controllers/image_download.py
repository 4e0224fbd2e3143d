"""Hands an image's disk out as raw bytes: what is written to an SSD or a stick."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import BinaryIO

from carmel.controllers.datastore import Datastores
from carmel.controllers.runtime import Key, Resources, Runtime
from carmel.errors import Conflict
from carmel.resources.image import IMAGE, Image, ImagePhase
from carmel.storage.build.files import in_thread
from carmel.storage.files import explained
from carmel.units import MIB

_CHUNK_BYTES = 1 * MIB


class ImageDownloads:
    """Each download is a copy of its own, gone with its last byte: an image may be deleted meanwhile."""

    def __init__(self, runtime: Runtime, datastores: Datastores) -> None:
        self._resources: Resources[Image] = runtime.resources(IMAGE, Image)
        self._datastores = datastores

    async def read(self, namespace: str, name: str) -> tuple[AsyncIterator[bytes], int]:
        """The bytes, and how many they are. The iterator must be closed, or read to its end.

        Raises ``NotFound``, ``Conflict`` (``ImageNotReady``), ``Unavailable``, and as ``ImageStore.open_raw`` does.
        """
        image = await self._resources.get(Key(namespace, name))
        if image.status.phase is not ImagePhase.READY:
            raise Conflict(f"the image {name} is not ready", code="ImageNotReady", hint="wait until it is")
        datastore = self._datastores.get(image.spec.datastore_ref.name)
        file, size = await datastore.images.open_raw(image.metadata.uid or "")
        return _Chunks(file), size


class _Chunks(AsyncIterator[bytes]):
    """No generator: one that was never begun would not close its file."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    async def __anext__(self) -> bytes:
        with explained("read an exported disk"):
            chunk = await in_thread(self._file.read, _CHUNK_BYTES)
        if not chunk:
            await self.aclose()
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        self._file.close()
