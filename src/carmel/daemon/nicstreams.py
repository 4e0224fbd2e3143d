"""Bytes for a SmartNIC's API server: of images. There are no VMs, and so none of theirs. Fulfils
``apiserver.streams.Streams``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from carmel.apiserver.streams import ConsoleStream, LogTail
from carmel.controllers.image_download import ImageDownloads
from carmel.controllers.image_upload import ImageUploads
from carmel.errors import NotFound


@dataclass(frozen=True, slots=True)
class NicStreams:
    """By the names of images."""

    uploads: ImageUploads
    downloads: ImageDownloads

    async def open_console(self, namespace: str, name: str) -> ConsoleStream:
        raise _none(namespace, name)

    async def read_log(
        self,
        namespace: str,
        name: str,
        tail: LogTail,  # noqa: ARG002 - the protocol's
    ) -> AsyncIterator[bytes]:
        raise _none(namespace, name)

    async def receive_upload(
        self, namespace: str, image_name: str, chunks: AsyncIterator[bytes], total_bytes: int | None
    ) -> None:
        await self.uploads.receive(namespace, image_name, chunks, total_bytes)

    async def read_image(self, namespace: str, name: str) -> tuple[AsyncIterator[bytes], int]:
        return await self.downloads.read(namespace, name)


def _none(namespace: str, name: str) -> NotFound:
    return NotFound(f"there is no {namespace}/{name} here: a SmartNIC runs no VMs")
