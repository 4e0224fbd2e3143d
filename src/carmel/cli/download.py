"""Fetching a disk image from the server as raw bytes."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from carmel.cli.images import image_kind
from carmel.cli.progress import Progress
from carmel.cli.session import Session
from carmel.errors import InsufficientStorage, Refused, Unavailable
from carmel.units import human_bytes

_FIRST_BYTE_SECONDS = 1800.0
"""The server unpacks the whole disk before it sends the first byte."""


def download(session: Session, name: str, target: str, progress: Progress, *, force: bool) -> None:
    """Write the disk of image ``name`` to ``target``: a file, a block device, or standard output (``-``).

    A new file appears whole or not at all, with holes where the disk is empty. Raises ``Refused`` (``FileExists``,
    ``FileUnwritable``) before anything is fetched, ``Unavailable`` when the server's answer breaks off.
    """
    path = image_kind(session).path(session.namespace, name, "download")
    with _opened(target, force=force) as (file, sparse):
        progress.step(f"exporting image {name}", "the host unpacks it", None)
        with session.client.open("GET", path, seconds=_FIRST_BYTE_SECONDS) as answer:
            total, done = answer.length, 0
            while chunk := answer.chunk():
                _write(file, chunk, sparse=sparse)
                done += len(chunk)
                detail = f"{human_bytes(done)}{f' of {human_bytes(total)}' if total else ''}"
                progress.step(f"exporting image {name}", detail, 100 * done // total if total else None)
        if total is not None and done != total:
            raise Unavailable(
                f"the image broke off: {done} of {total} bytes came", code="DownloadIncomplete", hint="try again"
            )
        if sparse:
            # The last block may have been a hole.
            file.truncate(done)


def _write(file: BinaryIO, chunk: bytes, *, sparse: bool) -> None:
    try:
        if sparse and not chunk.strip(b"\0"):
            file.seek(len(chunk), os.SEEK_CUR)
        else:
            file.write(chunk)
    except OSError as exc:
        raise InsufficientStorage(
            f"the image cannot be written: {exc.strerror}", code="FileUnwritable", hint="is there room for all of it?"
        ) from exc


@contextmanager
def _opened(target: str, *, force: bool) -> Iterator[tuple[BinaryIO, bool]]:
    """The file to write to, and whether holes may be left in it. What was begun and not finished is removed."""
    if target == "-":
        if sys.stdout.isatty():
            raise Refused("a disk is nothing for a terminal", code="FileUnwritable", hint="redirect it, or give a file")
        yield sys.stdout.buffer, False
        sys.stdout.buffer.flush()
        return
    place = Path(target)
    existing = _mode_of(place)
    if existing is not None and not force:
        what = "a drive: all that is on it would be lost" if stat.S_ISBLK(existing) else "there already"
        raise Refused(f"{target} is {what}", code="FileExists", hint="--force overwrites it")
    if existing is not None and not stat.S_ISREG(existing):
        with _opening(place, "r+b") as device:
            yield device, False
            device.flush()
            os.fsync(device.fileno())
        return
    part = place.with_name(f".{place.name}.part")
    try:
        with _opening(part, "wb") as file:
            yield file, True
            file.flush()
            os.fsync(file.fileno())
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)


def _mode_of(place: Path) -> int | None:
    try:
        return place.stat().st_mode
    except OSError:
        return None


def _opening(place: Path, mode: str) -> BinaryIO:
    try:
        return place.open(mode)  # type: ignore[return-value]  # binary modes only
    except OSError as exc:
        raise Refused(f"{place} cannot be written: {exc.strerror}", code="FileUnwritable") from exc
