"""Bytes for the API server: consoles, serial logs, uploads, downloads. Fulfils ``apiserver.streams.Streams``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

from carmel.apiserver.streams import ConsoleStream, LogTail
from carmel.controllers.image_download import ImageDownloads
from carmel.controllers.image_upload import ImageUploads
from carmel.controllers.runtime import Key, Resources
from carmel.daemon import logs
from carmel.hypervisor.machine import Hypervisor
from carmel.resources.virtualmachine import VirtualMachine


@dataclass(frozen=True, slots=True)
class DaemonStreams:
    """By the names of resources, which mean uids here."""

    vms: Resources[VirtualMachine]
    hypervisor: Hypervisor
    uploads: ImageUploads
    downloads: ImageDownloads

    async def open_console(self, namespace: str, name: str) -> ConsoleStream:
        return await self.hypervisor.open_console(await self._uid(namespace, name))

    async def read_log(self, namespace: str, name: str, tail: LogTail) -> AsyncIterator[bytes]:
        files = self.hypervisor.serial_log(await self._uid(namespace, name))

        async def chunks() -> AsyncIterator[bytes]:
            # Before the tail: what is written meanwhile is part of what follows.
            end = logs.size_of(files[-1]) if files else 0
            async for chunk in logs.read_tail(files, lines=tail.lines, count=tail.bytes):
                yield chunk
            if tail.follow and files:
                async for chunk in logs.follow(files[-1], end):
                    yield chunk

        return chunks()

    async def receive_upload(
        self, namespace: str, image_name: str, chunks: AsyncIterator[bytes], total_bytes: int | None
    ) -> None:
        await self.uploads.receive(namespace, image_name, chunks, total_bytes)

    async def read_image(self, namespace: str, name: str) -> tuple[AsyncIterator[bytes], int]:
        return await self.downloads.read(namespace, name)

    async def _uid(self, namespace: str, name: str) -> str:
        vm = await self.vms.get(Key(namespace, name))
        return vm.metadata.uid or ""
