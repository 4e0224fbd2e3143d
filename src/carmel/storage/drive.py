"""An NVMe namespace as a datastore: looked up by serial number, given a file system when it is empty, mounted.

What holds anything that Carmel did not put there is never touched. Whether it is empty is asked of its bytes: every
file system, volume group, RAID and partition table keeps something in the first MiB or the last.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from carmel.errors import Conflict, Refused, Unavailable
from carmel.hardware.blocks import BLOCK, Uses
from carmel.hardware.nvme_lookup import Space, spaces_with_serial
from carmel.hardware.sysroot import Sysroot
from carmel.run import Command, Limits, ProgramFailed, Runner, find_program
from carmel.storage.files import explained, sync_directory, sync_file
from carmel.units import MIB

LABEL = "carmel-datastore"
"""ext4's labels have 16 bytes."""
_OPTIONS = "nosuid,nodev,noatime,errors=remount-ro"
_EDGE = MIB
_SUPERBLOCK, _MAGIC_AT, _MAGIC, _LABEL_AT, _LABEL_BYTES = 1024, 56, b"\x53\xef", 120, 16
"""Where ext4 keeps them (Documentation/filesystems/ext4/super.rst)."""
_QUICK = Limits(seconds=60)
_LONG = Limits(seconds=3600)
_MENDED = 1
"""e2fsck's exit statuses up to this: nothing wrong, or nothing any more."""


@dataclass(frozen=True, slots=True)
class Content:
    """What lies on a namespace: nothing, a datastore of ours, or ``other``."""

    empty: bool
    ours: bool

    @property
    def other(self) -> bool:
        return not self.empty and not self.ours


class Drives:
    """Mounts and unmounts. ``root`` is where the kernel's files are; ``read`` looks at a device."""

    def __init__(self, runner: Runner, root: Path = Path("/"), read: Callable[[Path], Content] | None = None) -> None:
        self._runner = runner
        self._root = root
        self._read = read or look_at

    async def mount(self, serial: str, namespace_id: int, place: Path) -> Space:
        """The namespace, mounted at ``place``: there already is fine.

        Raises ``Refused`` (``DriveMissing``, ``DriveNotEmpty``, ``DriveDamaged``, ``PlaceNotEmpty``), ``Conflict``
        (``DriveInUse``) and what programs say.
        """
        space = await asyncio.to_thread(self._find, serial, namespace_id)
        if str(place) in space.mounted_at:
            return space
        if space.claims:
            raise Conflict(
                f"{space.device} is in use: {', '.join(space.claims)}",
                code="DriveInUse",
                hint="a datastore needs a drive that nothing else uses",
            )
        device = self._root / space.device.lstrip("/")
        content = await asyncio.to_thread(self._read, device)
        begun = place.with_name(f"{place.name}.making")
        if content.other and not await asyncio.to_thread(_was_begun, begun, serial, namespace_id):
            raise Refused(
                f"{space.device} is not empty, and what is on it is no datastore of Carmel's",
                code="DriveNotEmpty",
                hint=f"if nothing on it matters: blkdiscard {space.device}, or overwrite its first and last MiB",
            )
        await asyncio.to_thread(_make_place, place)
        if content.ours:
            await self._check_file_system(device)
        else:
            # Said before: half a file system, after a power cut, is nobody's.
            await asyncio.to_thread(_begin, begun, serial, namespace_id)
            await self._make_file_system(device)
        await asyncio.to_thread(begun.unlink, missing_ok=True)
        await self._run(["mount", "-t", "ext4", "-o", _OPTIONS, device, place], _LONG)
        return space

    async def unmount(self, place: Path) -> None:
        """Not mounted is fine. Raises ``Conflict`` (``DatastoreInUse``) while something in it is open."""
        mounts = (await asyncio.to_thread(Uses.read, Sysroot(self._root))).mounts.values()
        if not any(str(place) in places for places in mounts):
            return
        try:
            await self._run(["umount", place], _LONG)
        except ProgramFailed as exc:
            raise Conflict(
                f"{place} cannot be unmounted: {exc.result.last_words[-200:]}",
                code="DatastoreInUse",
                hint="is a VM still running from it?",
            ) from exc
        with contextlib.suppress(OSError):
            await asyncio.to_thread(place.rmdir)

    async def be_patient(self, space: Space, seconds: int) -> None:
        """What is asked of the device waits this long before the driver takes the drive for broken and resets it: 30
        seconds otherwise, and a SmartNIC that starts anew takes longer (Documentation/ABI/stable/sysfs-block)."""
        file = self._root / BLOCK / space.name / "queue" / "io_timeout"

        def write() -> None:
            with contextlib.suppress(FileNotFoundError):
                if file.read_text().strip() != f"{seconds * 1000}":
                    file.write_text(f"{seconds * 1000}")

        await asyncio.to_thread(write)

    # -- inside -------------------------------------------------------------------------------------------------
    def _find(self, serial: str, namespace_id: int) -> Space:
        found = spaces_with_serial(Sysroot(self._root), serial, namespace_id)
        if len(found) != 1:
            how_many = "no NVMe drive" if not found else f"{len(found)} NVMe drives"
            raise Refused(
                f"this host has {how_many} with the serial number {serial} and a namespace {namespace_id}",
                code="DriveMissing",
                hint="carmel host shows those there are",
                field="spec.nvme",
                retryable=True,
            )
        return found[0]

    async def _make_file_system(self, device: Path) -> None:
        await self._run(["mke2fs", "-q", "-t", "ext4", "-L", LABEL, "-m", "0", device], _LONG)

    async def _check_file_system(self, device: Path) -> None:
        """The journal is replayed by mounting; this mends what a journal cannot."""
        program = find_program("e2fsck")
        if program is None:
            return
        result = await self._runner.run(Command([program, "-p", device], limits=_LONG), check=False)
        if not 0 <= result.status <= _MENDED:
            raise Refused(
                f"the file system of {device} is damaged, and e2fsck does not mend it by itself",
                code="DriveDamaged",
                hint=f"look at what it asks: e2fsck {device}",
            )

    async def _run(self, argv: list[str | Path], limits: Limits = _QUICK) -> None:
        program = find_program(str(argv[0]))
        if program is None:
            raise Refused(f"{argv[0]} is not there", code="ProgramMissing", hint="Debian: e2fsprogs, util-linux")
        await self._runner.run(Command([program, *argv[1:]], limits=limits))


def look_at(device: Path) -> Content:
    """Reads both ends. Blocking. Raises ``Unavailable`` (``DriveNotReadable``)."""
    try:
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.lseek(descriptor, 0, os.SEEK_END)
            first = _read_at(descriptor, 0, min(_EDGE, size))
            last = _read_at(descriptor, max(0, size - _EDGE), min(_EDGE, size))
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise Unavailable(f"{device} cannot be read: {exc.strerror}", code="DriveNotReadable") from exc
    return content_of(first, last)


def content_of(first: bytes, last: bytes) -> Content:
    """From the first and the last bytes of a namespace."""
    block = first[_SUPERBLOCK:]
    magic = block[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)]
    label = block[_LABEL_AT : _LABEL_AT + _LABEL_BYTES].rstrip(b"\0")
    return Content(empty=not any(first) and not any(last), ours=magic == _MAGIC and label == LABEL.encode())


def _read_at(descriptor: int, offset: int, size: int) -> bytes:
    parts: list[bytes] = []
    left = size
    while left > 0 and (part := os.pread(descriptor, left, offset + size - left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _make_place(place: Path) -> None:
    with explained("make the place where the drive is mounted"):
        place.mkdir(mode=0o711, parents=True, exist_ok=True)
        found = place.lstat()
        if not stat.S_ISDIR(found.st_mode) or any(place.iterdir()):
            raise Refused(
                f"{place} is not empty: a drive that is mounted there would hide what it holds",
                code="PlaceNotEmpty",
                hint="was there another datastore of this name? move away what it left",
            )


def _begin(file: Path, serial: str, namespace_id: int) -> None:
    with explained("say that a file system is being made"):
        file.write_text(f"{namespace_id} {serial}")
        sync_file(file)
        sync_directory(file.parent)


def _was_begun(file: Path, serial: str, namespace_id: int) -> bool:
    try:
        return file.read_text() == f"{namespace_id} {serial}"
    except (FileNotFoundError, UnicodeDecodeError):
        return False
