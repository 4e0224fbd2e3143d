"""Room kept for a full disk: a file whose only use is to be removed when the database needs its space.

Without it a full disk could not even take the deletion of what fills it, since a deletion is written down first.
"""

from __future__ import annotations

import os
from pathlib import Path

RESERVE_BYTES = 4 * 1024 * 1024
_ENOUGH_LEFT = 4
"""The room is taken again only when the disk has this many times as much: else it would go back and forth."""


class Reserve:
    """The file at ``path``. Used on the store's writer thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept = path.exists()

    def keep(self) -> None:
        """Take the room if it is not taken and the disk has plenty. Never an error: a reserve is no promise."""
        if self._kept:
            return
        part = self._path.with_name(self._path.name + ".part")
        try:
            there = os.statvfs(self._path.parent)
            if there.f_bavail * there.f_frsize < _ENOUGH_LEFT * RESERVE_BYTES:
                return
            part.touch(mode=0o600)
            part.write_bytes(bytes(RESERVE_BYTES))
            part.replace(self._path)
            self._kept = True
        except OSError:
            part.unlink(missing_ok=True)

    def release(self) -> bool:
        """Give the room back. False when there was none."""
        kept, self._kept = self._kept, False
        self._path.unlink(missing_ok=True)
        return kept
