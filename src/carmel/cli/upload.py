"""Sending a disk image to the server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from carmel.cli.images import image_kind
from carmel.cli.progress import Progress
from carmel.cli.session import Session
from carmel.errors import Refused
from carmel.units import human_bytes

_ANSWER_SECONDS = 600.0
"""The server may still be writing the last bytes out when we have sent them."""


class _Watched:
    """A file that tells how far it has been read."""

    def __init__(self, file: BinaryIO, total: int, progress: Progress, title: str) -> None:
        self._file = file
        self._total = total
        self._sent = 0
        self._progress = progress
        self._title = title

    def read(self, size: int = -1, /) -> bytes:
        chunk = self._file.read(size)
        self._sent += len(chunk)
        detail = f"{human_bytes(self._sent)} of {human_bytes(self._total)}"
        self._progress.step(self._title, detail, 100 * self._sent // max(1, self._total))
        return chunk


def upload(session: Session, name: str, file: Path, progress: Progress) -> None:
    """Send ``file`` as the bytes of the image ``name``. Raises ``Refused`` for a file that cannot be read."""
    path = image_kind(session).path(session.namespace, name, "upload")
    try:
        opened = file.open("rb")
    except OSError as exc:
        raise Refused(f"{file} cannot be read: {exc.strerror}", code="FileUnreadable") from exc
    with opened:
        total = os.fstat(opened.fileno()).st_size
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(total)}
        body = _Watched(opened, total, progress, f"sending image {name}")
        with session.client.open("PUT", path, body=body, headers=headers, seconds=_ANSWER_SECONDS) as answer:
            answer.rest()
