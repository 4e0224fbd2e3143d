"""A raw disk copied onto a block device: data as it is, holes as zeros, whatever was there before."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from carmel.errors import Conflict
from carmel.storage.files import explained
from carmel.units import MIB

_PIECE = 4 * MIB
_BLKZEROOUT = 0x127F
"""linux/fs.h: zeros from here for so many bytes, by the drive itself where it can."""


def copy_onto(source: BinaryIO, size: int, device: Path, told: Callable[[int], bool]) -> bool:
    """Write the ``size`` bytes of ``source`` to the beginning of ``device``; they are on the disk when this returns.

    ``told`` hears how many bytes are done and answers whether to go on: ``False`` is returned if it did not. Blocking.
    Raises ``Conflict`` (``DeviceInUse``), and what the operating system says.
    """
    with explained(f"write to {device}"), _opened(device) as target:
        done = 0
        for start, length, is_data in _stretches(source.fileno(), size):
            offset, end = start, start + length
            while offset < end:
                count = min(_PIECE, end - offset)
                if is_data:
                    _write(target, os.pread(source.fileno(), count, offset), offset)
                else:
                    _zero(target, offset, count)
                offset, done = offset + count, done + count
                if not told(done):
                    return False
        os.fsync(target)
    return True


@contextlib.contextmanager
def _opened(device: Path) -> Iterator[int]:
    # A block device that is opened so is nobody else's: mounted, it is refused (open(2)).
    exclusive = os.O_EXCL if stat.S_ISBLK(device.stat().st_mode) else 0
    try:
        target = os.open(device, os.O_WRONLY | os.O_CLOEXEC | exclusive)
    except OSError as exc:
        if exc.errno != errno.EBUSY:
            raise
        raise Conflict(
            f"{device} is in use on this machine", code="DeviceInUse", hint="give it up there first"
        ) from exc
    try:
        yield target
    finally:
        os.close(target)


def _stretches(source: int, size: int) -> Iterator[tuple[int, int, bool]]:
    """(start, length, whether it is data) from 0 to ``size``, as lseek(2) tells them."""
    at = 0
    while at < size:
        try:
            data = min(os.lseek(source, at, os.SEEK_DATA), size)
        except OSError as exc:
            if exc.errno != errno.ENXIO:
                raise
            data = size
        if data > at:
            yield at, data - at, False
        if data < size:
            at = min(os.lseek(source, data, os.SEEK_HOLE), size)
            yield data, at - data, True
        else:
            at = size


def _write(target: int, data: bytes, offset: int) -> None:
    left = memoryview(data)
    while left:
        count = os.pwrite(target, left, offset)
        left, offset = left[count:], offset + count


def _zero(target: int, offset: int, count: int) -> None:
    try:
        fcntl.ioctl(target, _BLKZEROOUT, struct.pack("QQ", offset, count))
    except OSError as exc:
        # A file knows no such thing, and a drive takes whole blocks only.
        if exc.errno not in {errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP}:
            raise
        _write(target, bytes(count), offset)
