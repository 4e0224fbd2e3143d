"""Checksum files as vendors publish them beside their images: the formats of GNU coreutils and of the BSDs.

::

    9f86d08...  debian-12-genericcloud-arm64.qcow2
    9f86d08... *ubuntu-24.04-server-cloudimg-arm64.img
    SHA256 (disk.qcow2) = 9f86d08...
"""

from __future__ import annotations

import hashlib
import re
from typing import Protocol
from urllib.parse import unquote, urlsplit

from carmel.errors import Refused

MAX_BYTES = 1024 * 1024

_ALGORITHM_OF_DIGITS = {64: "sha256", 128: "sha512"}
_GNU = re.compile(r"(?P<digest>[0-9a-fA-F]{64}|[0-9a-fA-F]{128})\s+\*?(?:\./)?(?P<name>\S+)\s*")
_BSD = re.compile(r"SHA(?:256|512) \((?P<name>[^)]+)\) = (?P<digest>[0-9a-fA-F]{64}|[0-9a-fA-F]{128})\s*")


class Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def hexdigest(self) -> str: ...


def file_name(url: str) -> str:
    """The name by which a checksum file has what ``url`` leads to."""
    return unquote(urlsplit(url).path).rsplit("/", 1)[-1]


def find_checksum(text: str, name: str) -> str:
    """``sha256:HEX`` or ``sha512:HEX`` of ``name``. Raises ``Refused`` (``ChecksumMissing``) unless there is one.

    Lines of other formats (a signature around the list) are passed over.
    """
    found = set()
    for line in text.splitlines():
        match = _GNU.fullmatch(line) or _BSD.fullmatch(line)
        if match is not None and match["name"] == name:
            found.add(match["digest"].lower())
    if len(found) != 1:
        times = "twice, differently" if found else "not at all"
        raise Refused(
            f"the checksum file names {name[:200]!r} {times}",
            code="ChecksumMissing",
            hint="give the SHA256SUMS or SHA512SUMS file that belongs to this image",
        )
    digest = found.pop()
    return f"{_ALGORITHM_OF_DIGITS[len(digest)]}:{digest}"


def new_hash(checksum: str) -> Hash:
    """An empty hash of the algorithm that ``checksum`` (``sha256:HEX``) names."""
    return hashlib.new(checksum.partition(":")[0], usedforsecurity=True)
