"""Making, growing and measuring volumes in a datastore. All or nothing.

Volumes are thin: they take what is written to them. So a volume may be larger than what is free now, and all volumes
together larger than the datastore, as people expect of thin disks; only one that could never be filled, being larger
than the whole datastore, is refused. A guest whose datastore is full is paused by QEMU and goes on when there is room.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from carmel.errors import InsufficientStorage, Refused
from carmel.run import Runner
from carmel.storage.datastore import DISK, DirectoryDatastore
from carmel.storage.files import explained
from carmel.storage.qcow2 import Qcow2Header, damaged, read_header
from carmel.storage.qemu_img import QemuImg
from carmel.units import human_bytes

_CREATION_BYTES = 4 * 1024 * 1024
"""What a new, empty volume may take: header, tables."""
GRANULE = 512


@dataclass(frozen=True, slots=True)
class StoredVolume:
    """A volume in its place. Bytes: what a VM sees, and what it takes on the disk (without its image)."""

    capacity: int
    allocated: int
    image_uid: str | None


class VolumeStore:
    """The volumes of one datastore."""

    def __init__(self, datastore: DirectoryDatastore, runner: Runner) -> None:
        self.datastore = datastore
        self._qemu_img = QemuImg(runner, datastore.user)

    def find(self, uid: str) -> StoredVolume | None:
        """What is in the place of volume ``uid``, ``None`` if it was never finished. Blocking, short.

        Read from the header, not by qemu-img: a running VM's disk can be asked at any time.
        """
        place = self.datastore.volume(uid)
        with explained("look at a volume"):
            try:
                found = place.stat()
                with place.open("rb") as file:
                    header = read_header(file, found.st_size)
            except FileNotFoundError:
                return None
        return StoredVolume(header.virtual_size, found.st_blocks * 512, _image_uid(header))

    async def create(self, uid: str, size: int | None, image_uid: str | None) -> StoredVolume:
        """Make volume ``uid``: a copy of the image (it is its backing file), grown to ``size``; or empty.

        Raises ``InsufficientStorage`` (``VolumeTooLarge``, ``DiskFull``), ``Refused`` (``VolumeTooSmall``).
        """
        capacity = await asyncio.to_thread(self._capacity, size, image_uid)
        self.require_fits(capacity)
        self.datastore.require_free(_CREATION_BYTES, "a new volume")
        backing = None if image_uid is None else f"../images/{image_uid}/{DISK}"
        async with self.datastore.workspace(uid, "create") as workspace:
            file = workspace / "volume.qcow2"
            await self._qemu_img.create(file, capacity, backing=backing)
            await self.datastore.publish_volume(uid, file)
        return StoredVolume(capacity, 0, image_uid)

    async def grow(self, uid: str, size: int) -> None:
        """Raise the capacity of a volume that no VM uses. Raises ``Refused`` (``VolumeInUse``)."""
        self.require_fits(size)
        await asyncio.to_thread(self._require_ours, uid)
        await self._qemu_img.grow(self.datastore.volume(uid), _rounded(size))

    def require_fits(self, size: int) -> None:
        """Raises ``InsufficientStorage`` (``VolumeTooLarge``) for a disk larger than the datastore."""
        whole = self.datastore.capacity().capacity_bytes
        if size > whole:
            raise InsufficientStorage(
                f"a volume of {human_bytes(size)} is larger than its datastore, which has {human_bytes(whole)}",
                code="VolumeTooLarge",
                hint="choose a smaller size or a larger datastore",
                field="spec.size",
            )

    def _require_ours(self, uid: str) -> None:
        """A QEMU that was taken over may have written anything into its disk's header: qemu-img shall not follow it."""
        place = self.datastore.volume(uid)
        with explained("look at a volume"), place.open("rb") as file:
            header = read_header(file, place.stat().st_size)
        if header.data_file or header.encrypted or (header.backing_file and _image_uid(header) is None):
            raise damaged("its header refers to files that it was not made with")

    def _capacity(self, size: int | None, image_uid: str | None) -> int:
        if image_uid is None:
            assert size is not None, "a volume without an image has a size (admission)"
            return _rounded(size)
        disk = self.datastore.image_disk(image_uid)
        with explained("look at an image"), disk.open("rb") as file:
            base = read_header(file, disk.stat().st_size).virtual_size
        if size is not None and size < base:
            raise Refused(
                f"a volume of {human_bytes(size)} is smaller than its image, which has {human_bytes(base)}",
                code="VolumeTooSmall",
                hint=f"make it at least {base} bytes, or leave its size out",
                field="spec.size",
            )
        return base if size is None else _rounded(size)


def _rounded(size: int) -> int:
    """Up to whole sectors, as qemu-img does it."""
    return -(-size // GRANULE) * GRANULE


def _image_uid(header: Qcow2Header) -> str | None:
    parts = header.backing_file.split("/")
    return parts[2] if len(parts) == 4 and parts[:2] == ["..", "images"] and parts[3] == DISK else None
