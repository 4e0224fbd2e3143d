"""Logs that QEMU writes itself, kept to a bounded size.

QEMU writes the serial log and its own words with or without a daemon. The daemon looks at their sizes while it runs
and when it starts: a log that is too large is moved, its tail at least, to an older one and emptied in place, which
works because both are opened for appending. So two things are true that better be known: what is written in the
moment between copying and emptying is lost, and while no daemon runs a guest that talks much can grow its log beyond
the bound.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from carmel.units import KIB, MIB

SERIAL_LOG_BYTES = 4 * MIB
"""For each of the two files of the serial log."""
QEMU_LOG_BYTES = 256 * KIB
_LAST_WORDS_BYTES = 4 * KIB
_PANIC = re.compile(r"---\[ end (Kernel panic - not syncing:? ?.*?) ?(?:\]---)?$")


def cap(log: Path, older: Path | None, limit: int) -> None:
    """Empty ``log`` if it holds more than ``limit`` bytes; its last ``limit`` bytes go to ``older``, or stay."""
    try:
        with log.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            if size <= limit:
                return
            kept = older or log.with_name(log.name + ".part")
            source.seek(size - limit)
            part = kept.with_name(kept.name + ".new")
            with part.open("wb") as target:
                os.fchmod(target.fileno(), 0o600)
                while chunk := source.read(MIB):
                    target.write(chunk)
            part.rename(kept)
    except FileNotFoundError:
        return
    os.truncate(log, 0)
    if older is None:
        with log.open("ab") as again:
            again.write(kept.read_bytes())
        kept.unlink()


def last_words(log: Path, offset: int) -> list[str]:
    """The last lines that were written since ``offset``, newest last; what a terminal would obey is taken out."""
    try:
        with log.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = offset if offset <= size else 0
            file.seek(max(start, size - _LAST_WORDS_BYTES))
            text = file.read(_LAST_WORDS_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    lines = ("".join(char for char in line if char.isprintable()).strip() for line in text.splitlines())
    return [line for line in lines if line]


def panic_message(serial_log: Path) -> str | None:
    """What a Linux kernel panicked with, if that is the last thing on the console.

    The way that is left where the guest has no pvpanic driver (Debian's arm64 kernels have none): a kernel that was
    not told to reboot stops for ever behind this line (kernel/panic.c).
    """
    with contextlib.suppress(FileNotFoundError), serial_log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - KIB))
        lines = file.read(KIB).decode("utf-8", "replace").strip().splitlines()
        found = _PANIC.search(lines[-1]) if lines else None
        return "".join(char for char in found[1] if char.isprintable()) if found else None
    return None


def size_of(log: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return log.stat().st_size
    return 0
