"""The headers of a sparse VMDK, read without QEMU ("Virtual Disk Format 5.0", VMware), and what of it is refused.

Only files that are whole in themselves are taken: ``monolithicSparse`` (as workstations make it) and
``streamOptimized`` (as in an OVA). A descriptor can name other files of the host as its extents or parent.
"""

from __future__ import annotations

import re
import struct
from typing import BinaryIO

from carmel.errors import Refused
from carmel.storage.qcow2 import damaged
from carmel.units import MIB

MAGIC = b"KDMV"
DESCRIPTOR_MAGIC = b"# Disk DescriptorFile"
ESX_MAGIC = b"COWD"

SECTOR = 512
_HEADER = struct.Struct("<4sIIQQQQIQQQB4sH")
_GRAIN_DIRECTORY_AT_END = 0xFFFF_FFFF_FFFF_FFFF
_MAX_DESCRIPTOR = MIB
_MAX_DIRECTORY_ENTRIES = 4 * MIB
_ACCEPTED_TYPES = ("monolithicSparse", "streamOptimized")
_EXTENT = re.compile(r"^\s*(?:RW|RDONLY|NOACCESS)\s+(?P<sectors>\d{1,18})\s+(?P<type>\S+)", re.MULTILINE)


def read_virtual_size(file: BinaryIO, file_size: int) -> int:
    """Bytes of the disk in ``file``, a sparse VMDK. Raises ``Refused`` unless it is whole in itself."""
    file.seek(0)
    capacity, descriptor_offset, descriptor_size, directory = _header(file.read(SECTOR))
    if directory == _GRAIN_DIRECTORY_AT_END:
        # The footer (a marker, the header again, the end-of-stream marker) replaces the header: QEMU believes it.
        if file_size < 4 * SECTOR:
            raise _cut_off()
        file.seek(file_size - 2 * SECTOR)
        footer = file.read(SECTOR)
        if footer[:4] != MAGIC:
            raise _cut_off()
        end_capacity, _, _, end_directory = _header(footer)
        if end_capacity != capacity or end_directory == _GRAIN_DIRECTORY_AT_END:
            raise damaged("its header and its footer do not agree")
        directory = end_directory
    if directory * SECTOR >= file_size:
        raise _cut_off()
    if not 1 <= descriptor_size * SECTOR <= _MAX_DESCRIPTOR or descriptor_offset * SECTOR >= file_size:
        raise damaged("it has no descriptor, or one that is too large")
    file.seek(descriptor_offset * SECTOR)
    _check_descriptor(file.read(descriptor_size * SECTOR), capacity)
    return capacity * SECTOR


def _header(raw: bytes) -> tuple[int, int, int, int]:
    """(capacity, descriptor offset, descriptor size, grain directory), in sectors."""
    if len(raw) < _HEADER.size:
        raise _cut_off()
    (magic, version, _flags, capacity, grain, descriptor_offset, descriptor_size, entries, _, directory, _, _, _,
     compression) = _HEADER.unpack_from(raw)  # fmt: skip
    if magic != MAGIC or version not in (1, 2, 3):
        raise damaged(f"its VMDK version is {version}")
    # With a capacity of 0 QEMU takes the extents from the descriptor, that is, opens other files.
    if capacity == 0:
        raise _refers_elsewhere("it has no data of its own")
    if not 8 <= grain <= 0x8000 or grain & (grain - 1) or not 1 <= entries <= 512 or compression > 1:
        raise damaged("its grains have an impossible size")
    if capacity // (grain * entries) > _MAX_DIRECTORY_ENTRIES:
        raise damaged("its grain directory is larger than any real one")
    return capacity, descriptor_offset, descriptor_size, directory


def _check_descriptor(raw: bytes, capacity: int) -> None:
    text = raw.split(b"\0", 1)[0].decode("utf-8", "replace")
    kinds = re.findall(r'^\s*createType\s*=\s*"([^"]{0,64})"', text, re.MULTILINE)
    if len(kinds) != 1 or kinds[0] not in _ACCEPTED_TYPES:
        raise _refers_elsewhere(f"its type is {', '.join(kinds) or 'not given'}")
    parents = re.findall(r"^\s*parentCID\s*=\s*(\S{1,16})", text, re.MULTILINE)
    if "parentFileNameHint" in text or any(parent.lower() != "ffffffff" for parent in parents):
        raise _refers_elsewhere("it is only a difference to a parent disk")
    extents = _EXTENT.findall(text)
    if len(extents) != 1 or extents[0][1] != "SPARSE":
        raise _refers_elsewhere(f"its descriptor names {len(extents)} extents")
    if int(extents[0][0]) > capacity:
        raise damaged("its descriptor and its header do not agree on its size")


def refuse_descriptor() -> Refused:
    """For a file that is nothing but a descriptor, or of ESX's old format."""
    return _refers_elsewhere("it is a descriptor of other files")


def _refers_elsewhere(why: str) -> Refused:
    return Refused(
        f"this VMDK is not whole in itself: {why}",
        code="ImageHasExtents",
        hint="export it as one file: monolithicSparse or streamOptimized (ovftool, or qemu-img convert -O qcow2)",
    )


def _cut_off() -> Refused:
    return damaged("it ends too early: it was cut off", code="ImageTruncated")
