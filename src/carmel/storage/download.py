"""The daemon's side of a download: calls ``fetch`` in a child and tells how far it is."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from carmel.errors import InternalError
from carmel.resources.image import UrlSource
from carmel.run import Limits
from carmel.storage.child import Child
from carmel.storage.datastore import RESERVE_BYTES
from carmel.storage.fetch import PART, Request
from carmel.units import GIB, MIB, human_bytes

_LIMITS = Limits(seconds=24 * 3600, cpu_seconds=7200, address_space_bytes=GIB, output_bytes=16 * MIB)
_CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")

OnBytes = Callable[[int | None, str], None]
"""Per cent, where the size is known, and a line for people."""


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A verified file. ``checksum`` is the one it was verified by."""

    path: Path
    checksum: str


async def download(
    child: Child, source: UrlSource, directory: Path, *, max_bytes: int, on_bytes: OnBytes, tries: int = 4
) -> Downloaded:
    """Fetch ``source`` into ``directory``, going on where an earlier call ended.

    Gives up after ``tries`` failures with no progress in between.
    Raises ``Unavailable`` (``SourceUnavailable``, ``DiskFull``), ``Refused`` (``ImageDigestMismatch``,
    ``DownloadTooLarge``, ``ChecksumMissing``, ``SourceNotFound``, ``SourceForbidden``, ``CertificateInvalid``,
    ``InsecureRedirect``).
    """

    def progress(values: list[Any]) -> None:
        match values:
            case [int(have), int(total)] if total > 0:
                on_bytes(min(100 * have // total, 100), f"{human_bytes(have)} of {human_bytes(total)}")
            case [int(have), _]:
                on_bytes(None, human_bytes(have))

    request = Request(source.url, source.checksum, source.checksum_url, max_bytes, RESERVE_BYTES, tries=tries)
    answer = await child.call("carmel.storage.fetch", asdict(request), _LIMITS, cwd=directory, on_progress=progress)
    checksum = answer.get("checksum")
    if not isinstance(checksum, str) or not _CHECKSUM.fullmatch(checksum):
        raise InternalError("the download's child gave no checksum")
    return Downloaded(directory / PART, checksum)
