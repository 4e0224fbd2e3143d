"""A writer of ``newc`` cpio archives, the format of a Linux initramfs.

Source: the kernel's ``Documentation/driver-api/early-userspace/buffer-format.rst``. An entry is the magic ``070701``,
thirteen numbers of eight hexadecimal digits, the name with its NUL, the data; name and data are each padded to four
bytes, and an entry named ``TRAILER!!!`` ends the archive. Everything is owned by root and dated 1970, so equal input
gives equal bytes and no privilege is needed.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the archive. ``path`` has no leading slash; ``mode`` holds the file type too, as ``st_mode`` does.

    ``data`` may be a file that is read when the archive is written.
    """

    path: str
    mode: int
    data: bytes | Path = b""
    device: tuple[int, int] = (0, 0)

    @classmethod
    def file(cls, path: str, data: bytes | Path, *, executable: bool = False) -> Entry:
        return cls(path, stat.S_IFREG | (0o755 if executable else 0o644), data)

    @classmethod
    def directory(cls, path: str, permissions: int = 0o755) -> Entry:
        return cls(path, stat.S_IFDIR | permissions)

    @classmethod
    def symlink(cls, path: str, target: str) -> Entry:
        return cls(path, stat.S_IFLNK | 0o777, target.encode())

    @classmethod
    def character_device(cls, path: str, major: int, minor: int, permissions: int = 0o600) -> Entry:
        return cls(path, stat.S_IFCHR | permissions, device=(major, minor))


def archive(entries: Iterable[Entry]) -> bytes:
    """The archive of ``entries`` as bytes. See ``parts``."""
    return b"".join(parts(entries))


def parts(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The archive of ``entries`` piece by piece, sorted by path, with the directories that were left out.

    Raises ``ValueError`` if two entries have one path or a path is not a plain relative one.
    """
    for inode, entry in enumerate(_with_parents(entries), start=1):
        yield from _member(inode, entry)
    yield from _member(0, Entry(_TRAILER, 0))


def _with_parents(entries: Iterable[Entry]) -> list[Entry]:
    by_path: dict[str, Entry] = {}
    for entry in entries:
        path = PurePosixPath(entry.path)
        if not path.parts or path.is_absolute() or ".." in path.parts or str(path) != entry.path:
            raise ValueError(f"{entry.path!r} is not a plain relative path")
        if entry.path in by_path:
            raise ValueError(f"{entry.path!r} is there twice")
        by_path[entry.path] = entry
    for name in list(by_path):
        for parent in PurePosixPath(name).parents:
            if parent.parts:
                by_path.setdefault(str(parent), Entry.directory(str(parent)))
    # A directory's path is a prefix of its children's, so sorting by parts puts it before them.
    return sorted(by_path.values(), key=lambda entry: PurePosixPath(entry.path).parts)


def _member(inode: int, entry: Entry) -> Iterator[bytes]:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    major, minor = entry.device
    data = entry.data.read_bytes() if isinstance(entry.data, Path) else entry.data
    # ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    numbers = (inode, entry.mode, 0, 0, links, 0, len(data), 0, 0, major, minor, len(name), 0)
    header = _MAGIC + b"".join(b"%08X" % number for number in numbers)
    yield _padded(header + name)
    yield _padded(data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
