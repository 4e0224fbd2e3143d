"""The header of a qcow2 file, read without QEMU (QEMU's docs/interop/qcow2.txt), and what of it is refused.

A header can make QEMU open other files of the host (backing file, external data file) or take memory as it says (L1
table): so it is looked at before QEMU sees the file, by code that only ever reads a few bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from carmel.errors import Refused
from carmel.units import MIB

MAGIC = b"QFI\xfb"

_HEADER_V2 = struct.Struct(">4sIQIIQIIQQIIQ")
_HEADER_V3 = struct.Struct(">QQQII")
_V3_LENGTH = _HEADER_V2.size + _HEADER_V3.size
_DIRTY, _CORRUPT, _DATA_FILE, _COMPRESSION, _EXTENDED_L2 = (1 << bit for bit in range(5))
_KNOWN_FEATURES = _DIRTY | _CORRUPT | _DATA_FILE | _COMPRESSION | _EXTENDED_L2
_EXTENSION_END = 0
_EXTENSION_DATA_FILE = 0x44415441
_EXTENSION_ENCRYPTION = 0x0537BE77
_MAX_L1_BYTES = 32 * MIB
"""QEMU's own bound (block/qcow2.h, QCOW_MAX_L1_SIZE)."""
_MAX_REFTABLE_BYTES = 8 * MIB
_MAX_SNAPSHOTS = 1024
_MIN_SNAPSHOT_BYTES = 40
_MAX_BACKING_NAME = 1023
_MAX_EXTENSIONS = 64


@dataclass(frozen=True, slots=True)
class Qcow2Header:
    """What matters of a header. ``backing_file`` is empty for none."""

    virtual_size: int
    cluster_bytes: int
    backing_file: str
    encrypted: bool
    data_file: bool
    corrupt: bool


@dataclass(frozen=True, slots=True)
class _Fields:
    """The header's fields by their names in the specification."""

    version: int
    backing_file_offset: int
    backing_file_size: int
    cluster_bits: int
    size: int
    crypt_method: int
    l1_size: int
    l1_table_offset: int
    refcount_table_offset: int
    refcount_table_clusters: int
    nb_snapshots: int
    snapshots_offset: int
    incompatible_features: int = 0
    compatible_features: int = 0
    autoclear_features: int = 0
    refcount_order: int = 4
    header_length: int = _HEADER_V2.size

    @property
    def cluster(self) -> int:
        return 1 << self.cluster_bits


def read_header(file: BinaryIO, file_size: int) -> Qcow2Header:
    """Parse and bound the header of ``file``. Raises ``Refused`` for one that cannot be, or that is too large."""
    file.seek(0)
    fields = _fields(file.read(_V3_LENGTH))
    _check_numbers(fields)
    _check_tables(fields, file_size)
    extensions = _extensions(file, fields.header_length, fields.backing_file_offset or fields.cluster)
    return Qcow2Header(
        virtual_size=fields.size,
        cluster_bytes=fields.cluster,
        backing_file=_backing_file(file, fields),
        encrypted=fields.crypt_method != 0 or _EXTENSION_ENCRYPTION in extensions,
        data_file=bool(fields.incompatible_features & _DATA_FILE) or _EXTENSION_DATA_FILE in extensions,
        corrupt=bool(fields.incompatible_features & _CORRUPT),
    )


def _fields(raw: bytes) -> _Fields:
    if len(raw) < _HEADER_V2.size or not raw.startswith(MAGIC):
        raise damaged("it ends inside its header", code="ImageTruncated")
    values = _HEADER_V2.unpack_from(raw)[1:]
    if values[0] == 3:
        if len(raw) < _V3_LENGTH:
            raise damaged("it ends inside its header", code="ImageTruncated")
        values += _HEADER_V3.unpack_from(raw, _HEADER_V2.size)
    return _Fields(*values)


def _check_numbers(fields: _Fields) -> None:
    if fields.version not in (2, 3):
        raise damaged(f"its version is {fields.version}, not 2 or 3")
    if not 9 <= fields.cluster_bits <= 21:
        raise damaged(f"its clusters have 2^{fields.cluster_bits} bytes")
    length = fields.header_length
    if not _HEADER_V2.size <= length <= fields.cluster or length % 8 or fields.refcount_order > 6:
        raise damaged("its header has an impossible length or refcount width")
    if fields.incompatible_features & ~_KNOWN_FEATURES:
        raise damaged("it uses features that are not known", "convert it with the newest qemu-img first")


def _check_tables(fields: _Fields, file_size: int) -> None:
    cluster = fields.cluster
    entry = 16 if fields.incompatible_features & _EXTENDED_L2 else 8
    needed = -(-fields.size // (cluster * (cluster // entry)))
    # QEMU allocates what l1_size says: some room for growth is usual, a thousandfold is an attack.
    if fields.l1_size * 8 > _MAX_L1_BYTES or fields.l1_size > max(2 * needed, cluster // 8):
        raise damaged(f"its L1 table has {fields.l1_size} entries where {needed} would do")
    if fields.l1_size < needed:
        raise damaged("its L1 table is smaller than its disk")
    reftable_bytes = fields.refcount_table_clusters * cluster
    if reftable_bytes > max(_MAX_REFTABLE_BYTES, cluster) or fields.nb_snapshots > _MAX_SNAPSHOTS:
        raise damaged("its refcount or snapshot table is larger than any real one")
    tables = [(fields.l1_table_offset, fields.l1_size * 8), (fields.refcount_table_offset, reftable_bytes)]
    if fields.nb_snapshots:
        tables.append((fields.snapshots_offset, _MIN_SNAPSHOT_BYTES * fields.nb_snapshots))
    for offset, extent in tables:
        if offset % cluster or offset + extent > file_size:
            raise damaged("a table lies beyond its end: it was cut off", code="ImageTruncated")


def _backing_file(file: BinaryIO, fields: _Fields) -> str:
    if not fields.backing_file_offset:
        return ""
    offset, size = fields.backing_file_offset, fields.backing_file_size
    if not 1 <= size <= _MAX_BACKING_NAME or offset + size > fields.cluster:
        raise damaged("the name of its backing file cannot be")
    file.seek(offset)
    return file.read(size).decode("utf-8", "replace")


def require_self_contained(header: Qcow2Header) -> None:
    """Refuse a file that refers to other files, is encrypted, or marked corrupt."""
    if header.backing_file:
        raise Refused(
            f"this qcow2 image is only a difference to another file ({header.backing_file[:128]!r})",
            code="ImageHasBackingFile",
            hint="make it whole first: qemu-img convert -O qcow2 OLD NEW",
        )
    if header.data_file:
        raise Refused(
            "this qcow2 image keeps its data in another file",
            code="ImageHasDataFile",
            hint="make it whole first: qemu-img convert -O qcow2 OLD NEW",
        )
    if header.encrypted:
        raise Refused(
            "this qcow2 image is encrypted", code="ImageEncrypted", hint="decrypt it with qemu-img convert first"
        )
    if header.corrupt:
        raise damaged("it is marked as corrupt", "repair it first: qemu-img check -r all FILE")


def damaged(
    why: str, hint: str = "get the file again, or look at it with qemu-img check", *, code: str = "ImageDamaged"
) -> Refused:
    return Refused(f"this image cannot be used: {why}", code=code, hint=hint)


def _extensions(file: BinaryIO, start: int, end: int) -> dict[int, bytes]:
    """Header extensions: type and length, 32 bits each, data padded to 8 bytes."""
    found: dict[int, bytes] = {}
    position = start
    for _ in range(_MAX_EXTENSIONS):
        if position + 8 > end:
            return found
        file.seek(position)
        raw = file.read(8)
        if len(raw) < 8:
            return found
        kind, length = struct.unpack(">II", raw)
        if kind == _EXTENSION_END:
            return found
        if position + 8 + length > end:
            raise damaged("a header extension is longer than the header")
        found[kind] = file.read(min(length, 1024))
        position += 8 + (length + 7) // 8 * 8
    raise damaged("it has more header extensions than any real image")
