"""Making images in a datastore: from a file of foreign origin, or from what a builder made. All or nothing."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from carmel.errors import InternalError, Refused
from carmel.resources.image import ImageType
from carmel.run import Runner
from carmel.storage import build
from carmel.storage.build import BuildContext, KernelBundle, ProgressSink
from carmel.storage.child import Child
from carmel.storage.datastore import DISK, INITRD, KERNEL, RESERVE_BYTES, DirectoryDatastore
from carmel.storage.files import explained
from carmel.storage.inspect import DiskFormat, inspect, inspect_file
from carmel.storage.qcow2 import damaged
from carmel.storage.qemu_img import QemuImg
from carmel.units import TIB

MAX_VIRTUAL_SIZE = 64 * TIB
_MANIFEST = "image.json"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an image came from: a URL, ``upload`` or ``build:RECIPE``; the digest of its bytes as they came."""

    origin: str
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in its place. ``size`` is what it takes on the disk, ``virtual_size`` what a VM sees; bytes."""

    type: ImageType
    origin: Origin
    size: int
    virtual_size: int | None = None
    command_line: str | None = None


class ImageStore:
    """The images of one datastore."""

    def __init__(self, datastore: DirectoryDatastore, runner: Runner) -> None:
        self.datastore = datastore
        self._runner = runner
        self._qemu_img = QemuImg(runner, datastore.user)
        self._child = Child(runner, datastore.user)

    def find(self, uid: str) -> StoredImage | None:
        """What is in the place of image ``uid``; ``None`` if it was never finished. Blocking, short."""
        place = self.datastore.image(uid)
        with explained("look at an image"):
            if not place.is_dir():
                return None
            manifest = json.loads((place / _MANIFEST).read_text())
            origin = Origin(manifest["origin"], manifest["digest"])
            size = sum(entry.stat().st_blocks * 512 for entry in place.iterdir())
            if (place / DISK).exists():
                virtual_size = inspect_file(place / DISK, MAX_VIRTUAL_SIZE).virtual_size
                return StoredImage(ImageType.DISK, origin, size, virtual_size)
            return StoredImage(ImageType.KERNEL, origin, size, None, manifest["command_line"])

    def kernel(self, uid: str) -> tuple[Path, Path]:
        """Kernel and initrd of an image of type Kernel."""
        place = self.datastore.image(uid)
        return place / KERNEL, place / INITRD

    async def import_file(
        self, uid: str, source: Path, origin: Origin, on_percent: Callable[[int], None]
    ) -> StoredImage:
        """Convert ``source``, a file in one of this datastore's workspaces, into image ``uid``; ``source`` stays.

        Raises as ``inspect`` and ``QemuImg.convert`` do.
        """
        capacity = self.datastore.capacity()
        self._hand_over(source)
        found = await inspect(self._child, source, min(MAX_VIRTUAL_SIZE, capacity.capacity_bytes))
        if found.format is not DiskFormat.RAW:
            await self._qemu_img.check(source, found.format)
        # What comes out is hardly ever smaller than what went in: no need to find that out by filling the disk.
        allocated = (await asyncio.to_thread(source.stat)).st_blocks * 512
        self.datastore.require_free(allocated, "the image")
        async with self.datastore.workspace(uid, "import") as workspace:
            copy = workspace / "source"
            # A hard link: QEMU's user works in this directory alone.
            with explained("take an image in"):
                await asyncio.to_thread(os.link, source, copy, follow_symlinks=False)
            result = workspace / "image"
            with explained("make a working directory"):
                result.mkdir(mode=0o700)
                self._hand_over(result)
            target = workspace / DISK
            max_bytes = max(0, capacity.free_bytes - RESERVE_BYTES)
            await self._qemu_img.convert(copy, found.format, target, max_bytes=max_bytes, on_percent=on_percent)
            # The converter read hostile bytes: what it wrote is looked at like anything from outside.
            converted = await inspect(self._child, target, found.virtual_size + 65536)
            if converted.format is not DiskFormat.QCOW2:
                raise damaged("its conversion went wrong")
            with explained("put an image together"):
                target.rename(result / DISK)
                _write_manifest(result, origin)
            await self.datastore.publish_image(uid, result)
        return await asyncio.to_thread(self._found, uid)

    async def open_raw(self, uid: str) -> tuple[BinaryIO, int]:
        """The disk of image ``uid`` as raw bytes, in a file that is nowhere but in the caller's hands; its size.

        Raises ``Refused`` (``NotADisk``), and as ``QemuImg.convert`` does.
        """
        found = await asyncio.to_thread(self.find, uid)
        if found is None or found.virtual_size is None:
            raise Refused("this image is no disk, or not ready", code="NotADisk", hint="only disks can be exported")
        self.datastore.require_free(found.size, "the exported disk")
        async with self.datastore.workspace(uid, "export") as workspace:
            source, target = workspace / "source", workspace / "raw"
            with explained("read an image"):
                await asyncio.to_thread(os.link, self.datastore.image(uid) / DISK, source, follow_symlinks=False)
            await self._qemu_img.expand(source, target)
            with explained("read an exported disk"):
                return await asyncio.to_thread(target.open, "rb"), found.virtual_size

    async def build(
        self,
        uid: str,
        recipe: str,
        cache: Path,
        progress: ProgressSink,
        mirror: str | None = None,
        ready_made: Path | None = None,
    ) -> StoredImage:
        """Make image ``uid`` by a builder's recipe, or take it from ``ready_made``.

        Raises as ``carmel.storage.build.build`` does.
        """
        async with self.datastore.workspace(uid, "build") as workspace:
            output, scratch = workspace / "image", workspace / "work"
            with explained("make a working directory"):
                output.mkdir()
                scratch.mkdir()
            context = BuildContext(self._runner, cache, scratch, progress, mirror, ready_made)
            made = await build.build(recipe, context, output)
            with explained("put an image together"):
                if isinstance(made, KernelBundle):
                    names = {made.kernel: KERNEL, made.initrd: INITRD}
                    command_line = made.command_line
                else:
                    names, command_line = {made.path: DISK}, None
                _keep_only(output, names)
                _write_manifest(output, Origin(f"build:{recipe}"), command_line)
            await self.datastore.publish_image(uid, output)
        return await asyncio.to_thread(self._found, uid)

    def _hand_over(self, path: Path) -> None:
        if (user := self.datastore.user) is not None:
            os.chown(path, user.uid, user.gid, follow_symlinks=False)

    def _found(self, uid: str) -> StoredImage:
        found = self.find(uid)
        if found is None:
            raise InternalError(f"image {uid} is gone right after it was made")
        return found


def _keep_only(directory: Path, names: dict[Path, str]) -> None:
    for path, name in names.items():
        path.rename(directory / name)
    for path in directory.iterdir():
        if path.name not in names.values():
            path.unlink()


def _write_manifest(directory: Path, origin: Origin, command_line: str | None = None) -> None:
    manifest = {**asdict(origin), "command_line": command_line}
    (directory / _MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
