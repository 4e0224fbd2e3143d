"""Small ELF files for tests, laid out by elf(5)."""

from __future__ import annotations

import struct
from collections.abc import Mapping


def elf(sections: Mapping[str, bytes]) -> bytes:
    """A 64-bit little-endian file that has ``sections`` and nothing else."""
    names = b"\0"
    headers = [struct.pack("<IIQQQQIIQQ", *[0] * 10)]
    body = b""
    for name, data in [*sections.items(), (".shstrtab", b"")]:
        index = len(names)
        names += name.encode() + b"\0"
        content = names if name == ".shstrtab" else data
        headers.append(struct.pack("<IIQQQQIIQQ", index, 1, 0, 0, 64 + len(body), len(content), 0, 0, 1, 0))
        body += content
    table = 64 + len(body)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    numbers = struct.pack("<HHIQQQIHHHHHH", 1, 183, 1, 0, 0, table, 0, 64, 0, 0, 64, len(headers), len(headers) - 1)
    return ident + numbers + body + b"".join(headers)


def module(**fields: str) -> bytes:
    """A kernel module with these ``.modinfo`` fields."""
    return elf({".text": b"code", ".modinfo": b"".join(f"{key}={value}\0".encode() for key, value in fields.items())})


def program(needed: list[str]) -> bytes:
    """A program that needs these libraries."""
    strings, entries = b"\0", b""
    for name in needed:
        entries += struct.pack("<QQ", 1, len(strings))
        strings += name.encode() + b"\0"
    return elf({".dynstr": strings, ".dynamic": entries + struct.pack("<QQ", 0, 0)})
