"""Locks, durable copies and what the operating system's errors mean to a build."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

from carmel.errors import CarmelError, InsufficientStorage, InternalError
from carmel.run import ProgramFailed

P = ParamSpec("P")
T = TypeVar("T")
# _IOW(0x94, 9, int) of linux/fs.h.
_FICLONE = 0x40049409
_LOCK_POLL_SECONDS = 0.05


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like ``asyncio.to_thread``, but a cancelled caller goes on only when the thread has ended.

    A thread cannot be stopped: what it still writes would appear behind the cleaning.
    """
    task = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


@contextlib.asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """Hold ``path`` as a lock against other tasks and processes. flock(2) is dropped when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # A thread that waits in flock(2) could not be cancelled.
                await asyncio.sleep(_LOCK_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)


def copy(source: Path, target: Path) -> None:
    """Copy a file so that it outlives a power cut; shares its blocks where the file system can."""
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            fcntl.ioctl(writer, _FICLONE, reader.fileno())
        except OSError:
            shutil.copyfileobj(reader, writer, 1024 * 1024)
        writer.flush()
        os.fsync(writer.fileno())


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn what the system or a program says about a full disk, and other system errors, into errors of ours."""
    try:
        yield
    except ProgramFailed as exc:
        if "No space left on device" in exc.result.last_words:
            raise _full() from exc
        raise
    except OSError as exc:
        if isinstance(exc, CarmelError):
            raise
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full() from exc
        raise InternalError(f"the build could not use its files: {exc}", code="BuildFailed") from exc


def _full() -> InsufficientStorage:
    return InsufficientStorage(
        "the disk became full during the build",
        code="DiskFull",
        hint="free some space where Carmel keeps its cache and its datastores, then build again",
    )
