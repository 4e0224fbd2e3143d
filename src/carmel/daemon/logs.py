"""Reading serial logs: their end, and what comes after it.

QEMU appends to the log whether or not anybody reads; when it is capped it is emptied in place. So a follower reads the
file at its own pace, and no guest ever waits for one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

CHUNK = 64 * 1024
POLL_SECONDS = 0.25


async def read_tail(files: Sequence[Path], *, lines: int | None, count: int | None) -> AsyncIterator[bytes]:
    """The files after one another, or their last ``lines`` lines or ``count`` bytes."""
    sizes = [await asyncio.to_thread(_size, file) for file in files]
    skip = 0
    if lines is not None:
        skip = await asyncio.to_thread(_start_of_lines, files, sizes, lines)
    if count is not None:
        skip = max(skip, sum(sizes) - count)
    for file, size in zip(files, sizes, strict=True):
        position, skip = min(max(skip, 0), size), skip - size
        while position < size:
            chunk = await asyncio.to_thread(_read, file, position, min(CHUNK, size - position))
            if not chunk:
                break
            position += len(chunk)
            yield chunk


async def follow(file: Path, position: int) -> AsyncIterator[bytes]:
    """What is in ``file`` from ``position`` on and what is appended to it, until it is removed."""
    while True:
        size = await asyncio.to_thread(_size_or_gone, file)
        if size is None:
            return
        if size < position:
            position = 0
        while position < size:
            chunk = await asyncio.to_thread(_read, file, position, CHUNK)
            if not chunk:
                break
            position += len(chunk)
            yield chunk
        await asyncio.sleep(POLL_SECONDS)


def size_of(file: Path) -> int:
    """0 for a file that is not there."""
    return _size(file)


def _size(file: Path) -> int:
    return _size_or_gone(file) or 0


def _size_or_gone(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return None


def _read(file: Path, position: int, count: int) -> bytes:
    try:
        with file.open("rb") as opened:
            opened.seek(position)
            return opened.read(count)
    except FileNotFoundError:
        return b""


def _start_of_lines(files: Sequence[Path], sizes: Sequence[int], lines: int) -> int:
    """The offset, over all files, at which the last ``lines`` lines begin."""
    found, offset = 0, sum(sizes)
    if lines <= 0:
        return offset
    for file, size in zip(reversed(files), reversed(sizes), strict=True):
        base, end = offset - size, size
        while end > 0:
            begin = max(0, end - CHUNK)
            chunk = _read(file, begin, end - begin)
            for index in range(len(chunk) - 1, -1, -1):
                # The very last byte ends the last line; it does not begin another.
                if chunk[index] == 0x0A and base + begin + index != sum(sizes) - 1:
                    found += 1
                    if found == lines:
                        return base + begin + index + 1
            end = begin
        offset = base
    return 0
