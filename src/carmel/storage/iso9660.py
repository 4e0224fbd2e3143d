"""A small ISO 9660 image in memory: a few files in the root directory, under their names and in Joliet too.

ECMA-119 and Microsoft's "Joliet Specification". No program, no root, no dependence on the host's system; the same
input gives the same bytes. Names keep their hyphens in the plain tree as well (not strictly allowed there, read by
every system), so that readers without Joliet find ``user-data``.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

SECTOR = 2048

_PRIMARY, _JOLIET, _TERMINATOR = 16, 17, 18
_PRIMARY_PATHS, _JOLIET_PATHS = (19, 20), (21, 22)
_PRIMARY_ROOT, _JOLIET_ROOT, _FIRST_FILE = 23, 24, 25
_JOLIET_LEVEL_3 = b"%/E"
_DIRECTORY = 2
_DATE = bytes((100, 1, 1, 0, 0, 0, 0))
_LONG_DATE = b"2000010100000000\0"
_NO_DATE = b"0000000000000000\0"


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    data: bytes
    sector: int


def iso_image(volume_id: str, files: Mapping[str, bytes]) -> bytes:
    """The image. Names are ASCII of at most 27 characters; all directories must fit into a sector (about 20 files)."""
    placed = _place(files)
    end = placed[-1].sector + _sectors(len(placed[-1].data)) if placed else _FIRST_FILE
    plain = _Tree(_PRIMARY_ROOT, _PRIMARY_PATHS, _plain_name, "ascii")
    joliet = _Tree(_JOLIET_ROOT, _JOLIET_PATHS, _joliet_name, "utf-16-be")
    sectors = [
        _descriptor(1, volume_id, end, plain, b""),
        _descriptor(2, volume_id, end, joliet, _JOLIET_LEVEL_3),
        b"\xffCD001\x01",
        *(_path_table(tree.root, order) for tree in (plain, joliet) for order in ("<", ">")),
        _root_directory(plain, placed),
        _root_directory(joliet, placed),
    ]
    parts = [bytes(_PRIMARY * SECTOR), *map(_padded, sectors), *(_padded(file.data) for file in placed)]
    return b"".join(parts)


@dataclass(frozen=True, slots=True)
class _Tree:
    """One of the two views on the files."""

    root: int
    paths: tuple[int, int]
    name: Callable[[str], bytes]
    encoding: str

    def text(self, value: str, length: int) -> bytes:
        """``value`` padded with spaces to ``length`` bytes."""
        encoded = value.encode(self.encoding)
        space = " ".encode(self.encoding)
        return (encoded + space * length)[: length - length % len(space)].ljust(length, b"\0")


def _plain_name(name: str) -> bytes:
    stem, dot, extension = name.upper().partition(".")
    return f"{stem}{dot or '.'}{extension};1".encode("ascii")


def _joliet_name(name: str) -> bytes:
    return f"{name};1".encode("utf-16-be")


def _place(files: Mapping[str, bytes]) -> Sequence[_File]:
    placed, sector = [], _FIRST_FILE
    # Directories are sorted by name.
    for name in sorted(files, key=str.upper):
        placed.append(_File(name, files[name], sector))
        sector += _sectors(len(files[name]))
    return placed


def _descriptor(kind: int, volume_id: str, end: int, tree: _Tree, escape: bytes) -> bytes:
    """ECMA-119, 8.4 (primary) and 8.5 (supplementary volume descriptor)."""
    little, big = tree.paths
    return b"".join(
        (
            struct.pack("B5sBB", kind, b"CD001", 1, 0),
            tree.text("", 32),
            tree.text(volume_id, 32),
            bytes(8),
            _both(end, "I"),
            escape.ljust(32, b"\0"),
            _both(1, "H"),
            _both(1, "H"),
            _both(SECTOR, "H"),
            _both(len(_path_table(tree.root, "<")), "I"),
            struct.pack("<II", little, 0),
            struct.pack(">II", big, 0),
            _record(b"\0", tree.root, SECTOR, _DIRECTORY),
            tree.text("", 128) * 4,
            tree.text("", 37) * 3,
            _LONG_DATE * 2,
            _NO_DATE * 2,
            b"\x01",
        )
    )


def _path_table(root: int, order: str) -> bytes:
    """The root directory alone (ECMA-119, 9.4)."""
    return struct.pack(f"{order}BBIH", 1, 0, root, 1) + b"\0\0"


def _root_directory(tree: _Tree, files: Sequence[_File]) -> bytes:
    records = [_record(b"\0", tree.root, SECTOR, _DIRECTORY), _record(b"\1", tree.root, SECTOR, _DIRECTORY)]
    records += [_record(tree.name(file.name), file.sector, len(file.data), 0) for file in files]
    directory = b"".join(records)
    if len(directory) > SECTOR:
        raise ValueError("too many files for one directory sector")
    return directory


def _record(name: bytes, sector: int, size: int, flags: int) -> bytes:
    """ECMA-119, 9.1."""
    body = b"".join(
        (_both(sector, "I"), _both(size, "I"), _DATE, bytes((flags, 0, 0)), _both(1, "H"), bytes((len(name),)), name)
    )
    length = 2 + len(body)
    padding = length % 2
    return bytes((length + padding, 0)) + body + bytes(padding)


def _both(value: int, kind: str) -> bytes:
    """Both byte orders, one after the other."""
    return struct.pack(f"<{kind}", value) + struct.pack(f">{kind}", value)


def _sectors(size: int) -> int:
    return max(1, -(-size // SECTOR))


def _padded(data: bytes) -> bytes:
    return data.ljust(_sectors(len(data)) * SECTOR, b"\0")
