"""What a file from outside is, and whether QEMU may see it: ``python -m carmel.storage.inspect`` in a limited child.

Looks at headers only. A file that passes opens no other file and takes no memory beyond what its size warrants; that
its data is whole is for ``qemu-img check`` and the conversion to find.
"""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO

from carmel.errors import InsufficientStorage, Refused
from carmel.run import Limits
from carmel.storage import qcow2, vmdk
from carmel.storage.child import Child, main
from carmel.units import MIB, human_bytes

SECTOR = 512
_LIMITS = Limits(seconds=20, cpu_seconds=10, address_space_bytes=512 * MIB, output_bytes=64 * 1024)


class DiskFormat(StrEnum):
    """The formats that are taken, by QEMU's names."""

    RAW = "raw"
    QCOW2 = "qcow2"
    VMDK = "vmdk"


@dataclass(frozen=True, slots=True)
class Inspected:
    """A file that may be shown to QEMU as ``format``."""

    format: DiskFormat
    virtual_size: int


# Where each foreign format has its magic, and what it is called.
_FOREIGN = (
    (0, b"\x7fELF", "a program"),
    (0, b"\x1f\x8b", "compressed by gzip"),
    (0, b"\xfd7zXZ\0", "compressed by xz"),
    (0, b"BZh", "compressed by bzip2"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (257, b"ustar", "a tar archive (an OVA is one)"),
    (0, b"conectix", "a VHD disk"),
    (0, b"vhdxfile", "a VHDX disk"),
    (0, b"QED\0", "a QED disk"),
    (64, b"\x7f\x10\xda\xbe", "a VDI disk"),
    (0, b"WithoutFreeSpace", "a Parallels disk"),
    (0, b"WithouFreSpacExt", "a Parallels disk"),
    (0, b"Bochs Virtual HD Image", "a Bochs disk"),
    (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", "a cloop disk"),
    (0, b"LUKS\xba\xbe", "encrypted by LUKS"),
)


async def inspect(child: Child, file: Path, max_virtual_size: int) -> Inspected:
    """Look at ``file`` in a child. Raises ``Refused`` (``ImageDamaged``, ``ImageTruncated``, ``ImageHasBackingFile``,
    ``ImageHasDataFile``, ``ImageHasExtents``, ``ImageEncrypted``, ``UnknownImageFormat``), ``InsufficientStorage``.
    """
    request = {"file": file.name, "max_virtual_size": max_virtual_size}
    answer = await child.call("carmel.storage.inspect", request, _LIMITS, cwd=file.parent)
    size = int(answer["virtual_size"])
    if size > max_virtual_size:
        raise _too_large(size, max_virtual_size)
    return Inspected(DiskFormat(answer["format"]), size)


def inspect_file(path: Path, max_virtual_size: int) -> Inspected:
    """The same, here and now. Reads a few KiB."""
    # O_NONBLOCK: opening a FIFO would wait for its writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _unknown("not a regular file")
        image_format, size = _identify(file, found.st_size)
    if size > max_virtual_size:
        raise _too_large(size, max_virtual_size)
    return Inspected(image_format, size)


def _identify(file: BinaryIO, file_size: int) -> tuple[DiskFormat, int]:
    head = file.read(4096)
    if head.startswith(qcow2.MAGIC):
        header = qcow2.read_header(file, file_size)
        qcow2.require_self_contained(header)
        if header.virtual_size == 0:
            raise qcow2.damaged("its disk has no bytes")
        return DiskFormat.QCOW2, header.virtual_size
    if head.startswith(vmdk.MAGIC):
        return DiskFormat.VMDK, vmdk.read_virtual_size(file, file_size)
    if head.startswith(vmdk.ESX_MAGIC) or head.lstrip().startswith(vmdk.DESCRIPTOR_MAGIC):
        raise vmdk.refuse_descriptor()
    for offset, magic, name in _FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            raise _unknown(name)
    _check_raw(head, file, file_size)
    return DiskFormat.RAW, file_size


def _check_raw(head: bytes, file: BinaryIO, file_size: int) -> None:
    if not head:
        raise _unknown("empty")
    if _is_text(head):
        raise _unknown("text (perhaps a server's error page)")
    if file_size % SECTOR:
        raise qcow2.damaged("it does not end at a whole sector: it was cut off", code="ImageTruncated")
    file.seek(file_size - SECTOR)
    if file.read(8) == b"conectix":
        raise _unknown("a VHD disk")
    if head[SECTOR : SECTOR + 8] == b"EFI PART":
        # UEFI specification, "GPT Header": where the copy of the header lies, which is the disk's last sector.
        (alternate,) = struct.unpack_from("<Q", head, SECTOR + 32)
        if (alternate + 1) * SECTOR > file_size:
            raise qcow2.damaged(
                f"it ends at byte {file_size}, but its partition table says {(alternate + 1) * SECTOR}: it was cut off",
                code="ImageTruncated",
            )


def _is_text(head: bytes) -> bool:
    return all(byte >= 0x20 or byte in b"\t\n\r\f" for byte in head[:SECTOR])


def _unknown(what: str) -> Refused:
    return Refused(
        f"this file is no disk image that is taken here: it is {what}",
        code="UnknownImageFormat",
        hint="raw, qcow2 and VMDK images are taken: unpack it, or convert it with qemu-img convert -O qcow2",
    )


def _too_large(size: int, limit: int) -> InsufficientStorage:
    return InsufficientStorage(
        f"the image's disk has {human_bytes(size)}, which is more than the {human_bytes(limit)} that fit here",
        code="ImageTooLarge",
        hint="use a larger datastore",
    )


def _work(request: dict[str, Any]) -> dict[str, Any]:
    found = inspect_file(Path(request["file"]), int(request["max_virtual_size"]))
    return {"format": found.format.value, "virtual_size": found.virtual_size}


if __name__ == "__main__":
    main(_work)
