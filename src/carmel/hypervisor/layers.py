"""The files that make up one disk: a qcow2 overlay and what lies under it.

Read from the images' own headers (QEMU's docs/interop/qcow2.txt) before QEMU does, so that each file can be named on
the command line, locked, and opened to QEMU's user. Only local files with an explicit format are followed.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

from carmel.errors import Refused
from carmel.hypervisor.config import DiskConfig
from carmel.resources.virtualmachine import DiskCache

_MAGIC = b"QFI\xfb"
_MAX_LAYERS = 64
_MAX_NAME = 1023
_MAX_EXTENSIONS = 16
_BACKING_FORMAT = 0xE2792ACA
_EXTERNAL_DATA_FILE = 1 << 2


@dataclass(frozen=True, slots=True)
class Layer:
    """One file of a disk, and what it is read as."""

    path: Path
    format: Literal["qcow2", "raw"]
    block_device: bool = False
    direct: bool = False
    """Read and written past the host's page cache."""


def disk_layers(disk: DiskConfig) -> Sequence[Layer]:
    """The disk's own file first, the base last. Raises ``Refused`` (``BadDiskImage``, ``DiskMissing``,
    ``DirectIONotPossible``).

    What lies below is read through the page cache whatever ``disk.cache`` says: it is never written, and many disks
    may stand on one base, which is then in memory once.
    """
    layers = [Layer(disk.path, disk.format)]
    while layers[-1].format == "qcow2":
        if len(layers) > _MAX_LAYERS:
            raise _bad(disk.path, f"it has more than {_MAX_LAYERS} layers")
        below = _below(layers[-1].path)
        if below is None:
            break
        if any(layer.path == below.path for layer in layers):
            raise _bad(disk.path, "its layers form a circle")
        layers.append(below)
    own, *below_it = [_checked(layer) for layer in layers]
    return [replace(own, direct=_direct(disk)), *below_it]


def _direct(disk: DiskConfig) -> bool:
    if disk.cache is DiskCache.WRITE_BACK:
        return False
    if can_be_direct(disk.path):
        return True
    if disk.cache is None:
        return False
    raise Refused(
        f"the disk {disk.name} cannot be read and written past the host's page cache: its file system has no O_DIRECT",
        code="DirectIONotPossible",
        hint="leave cache out, or set it to WriteBack",
        field="spec.disks",
    )


def can_be_direct(path: Path) -> bool:
    """Whether the file can be opened with O_DIRECT (open(2)): not on every file system, and never on macOS."""
    flag = getattr(os, "O_DIRECT", None)
    if flag is None:
        return False
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | flag))
    except OSError as exc:
        if exc.errno == errno.EINVAL:
            return False
        raise _missing(path) from exc
    return True


def _checked(layer: Layer) -> Layer:
    try:
        mode = layer.path.stat().st_mode
    except OSError as exc:
        raise _missing(layer.path) from exc
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        raise _bad(layer.path, "it is neither a file nor a block device")
    return replace(layer, block_device=stat.S_ISBLK(mode))


def _below(path: Path) -> Layer | None:
    try:
        with path.open("rb") as file:
            return _backing(path, file)
    except FileNotFoundError as exc:
        raise _missing(path) from exc
    except (OSError, struct.error, UnicodeDecodeError) as exc:
        raise _bad(path, f"its header cannot be read ({exc})") from exc


def _backing(path: Path, file: BinaryIO) -> Layer | None:
    header = file.read(104)
    magic, version, offset, size = struct.unpack_from(">4sIQI", header)
    if magic != _MAGIC or version not in (2, 3):
        raise _bad(path, "it is not a qcow2 image of version 2 or 3")
    length = 72
    if version == 3:
        (features,) = struct.unpack_from(">Q", header, 72)
        (length,) = struct.unpack_from(">I", header, 100)
        if features & _EXTERNAL_DATA_FILE:
            raise _bad(path, "its data lies in another file")
    if offset == 0:
        return None
    if not 0 < size <= _MAX_NAME:
        raise _bad(path, "the name of its backing file is too long")
    image_format = _backing_format(file, length)
    file.seek(offset)
    name = file.read(size).decode()
    if image_format not in ("qcow2", "raw") or name.startswith("json:") or "://" in name:
        raise _bad(path, f"its backing file {name[:80]!r} is not a local qcow2 or raw file")
    # As QEMU does: relative to the folder of the image that names it.
    return Layer(path.parent / name, "qcow2" if image_format == "qcow2" else "raw")


def _backing_format(file: BinaryIO, header_length: int) -> str | None:
    file.seek(header_length)
    for _ in range(_MAX_EXTENSIONS):
        kind, size = struct.unpack(">II", file.read(8))
        if kind == 0:
            return None
        if kind == _BACKING_FORMAT:
            return file.read(min(size, 64)).decode()
        file.seek((size + 7) // 8 * 8, 1)
    return None


def _bad(path: Path, why: str) -> Refused:
    return Refused(
        f"the disk image {path.name} cannot be used: {why}",
        code="BadDiskImage",
        hint="import the image again; qemu-img check says more",
    )


def _missing(path: Path) -> Refused:
    return Refused(
        f"the disk file {path} is not there",
        code="DiskMissing",
        hint="was its datastore unmounted, or the file removed by hand?",
    )
