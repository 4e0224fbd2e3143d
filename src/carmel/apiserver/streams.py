"""What this room asks of the daemon where bytes, not resources, go to and fro. ``controllers`` fulfils it.

A consumer that does not keep up must never hold up a guest: whoever makes the bytes keeps a bounded buffer for each
consumer and drops the consumer that overruns it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


class ConsoleStream(Protocol):
    """One client's view of a VM's serial console."""

    async def read(self) -> bytes:
        """What the guest wrote. ``b""``: the VM ended. Raises ``Unavailable`` when this reader was dropped."""
        ...

    async def write(self, data: bytes) -> None:
        """Type ``data`` at the guest. Raises ``Unavailable`` when there is no guest any more."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class LogTail:
    """How much of a log's end is wanted; ``None`` is all there is. With ``follow``, what comes later too."""

    lines: int | None = None
    bytes: int | None = None
    follow: bool = False


class Streams(Protocol):
    """Errors come before the first byte: ``NotFound``, ``Refused``, ``Unavailable``, ``TooLarge``, ``Conflict``."""

    async def open_console(self, namespace: str, name: str) -> ConsoleStream:
        """The serial console of a running VM. ``Refused`` when it is not running."""
        ...

    async def read_log(self, namespace: str, name: str, tail: LogTail) -> AsyncIterator[bytes]:
        """The VM's serial log."""
        ...

    async def receive_upload(
        self, namespace: str, image_name: str, chunks: AsyncIterator[bytes], total_bytes: int | None
    ) -> None:
        """Take an Image's bytes (raw, qcow2, vmdk). ``chunks`` raises ``Unavailable`` when the sender goes away."""
        ...

    async def read_image(self, namespace: str, name: str) -> tuple[AsyncIterator[bytes], int]:
        """The disk of an Image as raw bytes, and how many they are. ``Refused`` for one that is no disk."""
        ...
