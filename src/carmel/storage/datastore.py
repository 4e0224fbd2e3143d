"""A directory of the host as a datastore.

::

    images/UID/disk.qcow2            an image of type Disk
    images/UID/kernel, initrd        an image of type Kernel
    volumes/UID.qcow2                a volume; its backing file, if it came from an image, is ../images/UID/disk.qcow2
    tmp/UID.KIND.RANDOM/             what is being made for object UID, moved to its place by one rename when whole
    tmp/UID.download/                what has come of a download: kept over a restart, so that it goes on where it was

Everything is named by uid: a name that is used again never meets an older object's files. The backing file's name is
relative, so that the whole directory can be moved or mounted elsewhere.

Directories are 0711, so that QEMU's unprivileged user reaches the disks it is given and can list nothing; files
belong to that user's group (0640 images, 0660 volumes), or to the daemon's own user alone where it is not root.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass
from pathlib import Path

from carmel.errors import Refused
from carmel.storage.files import ProcessUser, disk_full, explained, sync_directory, sync_file

DISK = "disk.qcow2"
KERNEL = "kernel"
INITRD = "initrd"

_DOWNLOAD = "download"
DIRECTORY_MODE = 0o711

RESERVE_BYTES = 64 * 1024 * 1024
"""What a copy leaves free, so that a full datastore does not stop the store and the logs beside it."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """Bytes of the file system that a datastore lies on."""

    capacity_bytes: int
    free_bytes: int


class DirectoryDatastore:
    """One open datastore. ``opening.open_datastore`` makes it; ``close`` lets another daemon have it.

    Methods block for a system call or a few; those that may take long are coroutines.
    """

    def __init__(self, root: Path, lock: int, user: ProcessUser | None) -> None:
        self.root = root
        self.user = user
        self._lock = lock

    # -- places -------------------------------------------------------------------------------------------------
    def image(self, uid: str) -> Path:
        return self.root / "images" / _checked(uid)

    def image_disk(self, uid: str) -> Path:
        return self.image(uid) / DISK

    def volume(self, uid: str) -> Path:
        return self.root / "volumes" / f"{_checked(uid)}.qcow2"

    def download(self, uid: str) -> Path:
        """Where a download for ``uid`` gathers; made if it is not there."""
        return self._make_workspace(f"{_checked(uid)}.{_DOWNLOAD}")

    @contextlib.asynccontextmanager
    async def workspace(self, uid: str, kind: str) -> AsyncIterator[Path]:
        """A directory for work on ``uid``, gone when the block ends. QEMU's user may write into it."""
        with explained("make a working directory"):
            directory = self._make_workspace(f"{_checked(uid)}.{kind}.{secrets.token_hex(4)}")
        try:
            yield directory
        finally:
            # A second cancellation must not stop the cleaning.
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True))

    # -- what is there ------------------------------------------------------------------------------------------
    def capacity(self) -> Capacity:
        with explained("read the datastore's size"):
            found = os.statvfs(self.root)
        return Capacity(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    def require_there(self) -> None:
        """Raises ``Refused`` (``DatastoreMissing``) when the directory was removed, or something mounted over it."""
        with explained("look at the datastore"):
            ours = os.fstat(self._lock)
            try:
                now = self.root.stat()
            except FileNotFoundError:
                raise missing(self.root) from None
            if (ours.st_dev, ours.st_ino) != (now.st_dev, now.st_ino):
                raise missing(self.root)

    def require_writable(self) -> None:
        """Raises ``Refused`` (``DatastoreReadOnly``) when the kernel took the file system for broken."""
        with explained("look at the datastore"):
            if os.statvfs(self.root).f_flag & os.ST_RDONLY:
                raise Refused(
                    f"the file system of {self.root} became read-only: its disk failed to read or write",
                    code="DatastoreReadOnly",
                    hint="the kernel's log (dmesg) says what happened; it is mounted anew when nothing uses it",
                    retryable=True,
                )

    def require_free(self, size: int, what: str) -> None:
        """Raises ``InsufficientStorage``, retryable, unless ``size`` bytes and the reserve are free."""
        free = self.capacity().free_bytes
        if size + RESERVE_BYTES > free:
            error = disk_full()
            error.message = f"{what} needs {size} bytes and {RESERVE_BYTES} more, but only {free} are free"
            raise error

    # -- changes ------------------------------------------------------------------------------------------------
    async def publish_image(self, uid: str, directory: Path) -> None:
        """Move a whole image to its place. Its files are on the disk when this returns."""
        await asyncio.to_thread(self._publish, directory, self.image(uid), 0o640)

    async def publish_volume(self, uid: str, file: Path) -> None:
        await asyncio.to_thread(self._publish, file, self.volume(uid), 0o660)

    async def remove_image(self, uid: str) -> None:
        """Gone already is fine. Renamed first: half an image is never seen."""
        await asyncio.to_thread(self._remove, self.image(uid), uid)
        await self.remove_download(uid)

    async def remove_volume(self, uid: str) -> None:
        await asyncio.to_thread(self._remove, self.volume(uid), uid)

    async def remove_download(self, uid: str) -> None:
        place = self.root / "tmp" / f"{_checked(uid)}.{_DOWNLOAD}"
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)

    async def sweep(self, keep_downloads_of: Collection[str] = ()) -> int:
        """Remove what a daemon that was killed left half made, but not the downloads of objects that still are.

        To be called when nothing is being made. Answers how many things were removed.
        """
        return await asyncio.to_thread(self._sweep, frozenset(keep_downloads_of))

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # -- blocking -----------------------------------------------------------------------------------------------
    def _make_workspace(self, name: str) -> Path:
        directory = self.root / "tmp" / name
        directory.mkdir(mode=0o700, exist_ok=True)
        if self.user is not None:
            os.chown(directory, self.user.uid, self.user.gid, follow_symlinks=False)
        return directory

    def _publish(self, source: Path, place: Path, mode: int) -> None:
        with explained("put a finished disk into its place"):
            files = sorted(source.iterdir()) if source.is_dir() else [source]
            for file in files:
                self._give(file, mode)
                sync_file(file)
            if source.is_dir():
                self._give(source, DIRECTORY_MODE)
                sync_directory(source)
            source.rename(place)
            sync_directory(place.parent)

    def _give(self, path: Path, mode: int) -> None:
        if self.user is not None:
            os.chown(path, 0, self.user.gid, follow_symlinks=False)
        elif not path.is_dir():
            mode &= 0o700
        path.chmod(mode)

    def _remove(self, place: Path, uid: str) -> None:
        with explained("remove a disk"):
            grave = self.root / "tmp" / f"{uid}.removed.{secrets.token_hex(4)}"
            try:
                place.rename(grave)
            except FileNotFoundError:
                return
            sync_directory(place.parent)
            if grave.is_dir():
                shutil.rmtree(grave)
            else:
                grave.unlink()

    def _sweep(self, keep: frozenset[str]) -> int:
        removed = 0
        with explained("remove what was left half made"):
            for entry in (self.root / "tmp").iterdir():
                uid, _, kind = entry.name.partition(".")
                if kind == _DOWNLOAD and uid in keep:
                    continue
                removed += 1
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        return removed


def missing(root: Path) -> Refused:
    return Refused(
        f"the datastore's directory {root} is not there any more",
        code="DatastoreMissing",
        hint="mount its disk again, or bring the directory back",
        retryable=True,
    )


def _checked(uid: str) -> str:
    """Uids are made by the store, but a path is built from them: nothing but a file name may pass."""
    if not uid or not all(char.isalnum() or char == "-" for char in uid):
        raise ValueError(f"{uid!r} is not a uid")
    return uid
