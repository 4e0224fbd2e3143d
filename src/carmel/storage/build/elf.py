"""The little of elf(5) that builders read: sections, and the shared libraries a program needs.

64 bit, little endian: every Arm Linux that Carmel runs.
"""

from __future__ import annotations

import struct

from carmel.errors import InternalError

_MAGIC = b"\x7fELF\x02\x01"
_NEEDED = 1


def section(elf: bytes, wanted: bytes) -> bytes:
    """The bytes of section ``wanted``, empty if there is none. Raises ``InternalError`` if ``elf`` is damaged."""
    if not elf.startswith(_MAGIC):
        raise InternalError("a file from a package is not a 64-bit little-endian ELF file")
    try:
        (table,) = struct.unpack_from("<Q", elf, 0x28)
        size, count, names_index = struct.unpack_from("<HHH", elf, 0x3A)
        headers = [struct.unpack_from("<IIQQQQ", elf, table + index * size) for index in range(count)]
        names = headers[names_index][4]
        for name, _type, _flags, _address, offset, length in headers:
            start = names + name
            if elf[start : elf.index(b"\0", start)] == wanted:
                return elf[offset : offset + length]
    except (struct.error, IndexError, OverflowError, ValueError) as exc:
        raise InternalError("an ELF file from a package is damaged") from exc
    return b""


def needed_libraries(elf: bytes) -> list[str]:
    """The ``DT_NEEDED`` names of a program or library, in order."""
    strings = section(elf, b".dynstr")
    dynamic = section(elf, b".dynamic")
    entries = struct.iter_unpack("<QQ", dynamic[: len(dynamic) // 16 * 16])
    return [strings[value : strings.index(b"\0", value)].decode() for tag, value in entries if tag == _NEEDED]
