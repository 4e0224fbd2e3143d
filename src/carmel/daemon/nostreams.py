"""Where there are no VMs, there are no bytes of theirs. Fulfils ``apiserver.streams.Streams``."""

from __future__ import annotations

from collections.abc import AsyncIterator

from carmel.apiserver.streams import ConsoleStream, LogTail
from carmel.errors import NotFound


class NoStreams:
    """Of a SmartNIC."""

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
        self,
        namespace: str,
        image_name: str,
        chunks: AsyncIterator[bytes],  # noqa: ARG002 - the protocol's
        total_bytes: int | None,  # noqa: ARG002
    ) -> None:
        raise _none(namespace, image_name)

    async def read_image(self, namespace: str, name: str) -> tuple[AsyncIterator[bytes], int]:
        raise _none(namespace, name)


def _none(namespace: str, name: str) -> NotFound:
    return NotFound(f"there is no {namespace}/{name} here: a SmartNIC runs no VMs and keeps no images")
