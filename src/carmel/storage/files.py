"""What a datastore asks of the file system: durable renames, owners and modes, and what a full disk is called."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from carmel.errors import CarmelError, InsufficientStorage, InternalError


@dataclass(frozen=True, slots=True)
class ProcessUser:
    """The unprivileged user, by numbers, that programs which read foreign data (QEMU, qemu-img) run as.

    Only where the daemon is root; elsewhere everything runs as the user it is.
    """

    uid: int
    gid: int


def sync_file(path: Path) -> None:
    """Bring a file's data to the disk."""
    _sync(path, os.O_RDONLY)


def sync_directory(path: Path) -> None:
    """Bring a directory's entries to the disk: without it a rename may not outlive a power cut (fsync(2))."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def disk_full(where: str = "the datastore") -> InsufficientStorage:
    return InsufficientStorage(
        f"the disk of {where} is full",
        code="DiskFull",
        hint="free some space there: the work is taken up again by itself",
        retryable=True,
    )


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn errors of the operating system into errors of ours. ``what`` is what was tried: "write the image"."""
    try:
        yield
    except OSError as exc:
        if isinstance(exc, CarmelError):
            raise
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full() from exc
        raise InternalError(
            f"could not {what}: {exc.strerror}: {exc.filename}",
            code="FileSystemError",
            hint="look at the disk's health and at the permissions of the datastore's directory",
            retryable=True,
        ) from exc
