"""The files below a root folder: this machine's own, or those of a recorded one.

What is read there is the kernel's, the firmware's or (in a recording) anybody's: every read has a limit, nothing but
regular files is read, links stay below the root, and what is odd becomes a remark instead of an error.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from carmel.cpulist import parse_cpu_list

SMALL = 4096
"""Bytes: an attribute of sysfs is at most a page (Documentation/filesystems/sysfs.rst)."""
MOST_REMARKS = 50
_MOST_LINKS = 40
"""As the kernel's own limit (path_resolution(7))."""
_MOST_NAMES = 65536
_LONGEST_WORD = 256
_NOT_THERE = (OSError, ValueError)
"""The latter for a name with a NUL in it."""
_LONGEST_REMARK = 600


class Sysroot:
    """Paths are relative to the root, without a slash in front: ``sys/devices/system/cpu/online``.

    A file that is missing or cannot be read is ``None``, never an error: which of them exist depends on the kernel's
    version and configuration, and any CPU or device can go away between two reads.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root).rstrip("/")
        self._folders: dict[str, str | None] = {}
        self._remarks: dict[str, None] = {}
        self._left_out = 0

    @property
    def live(self) -> bool:
        """Whether this is the running machine itself, so that its kernel can be asked more than files say."""
        return not self._root

    @property
    def remarks(self) -> tuple[str, ...]:
        if not self._left_out:
            return tuple(self._remarks)
        return (*self._remarks, f"{self._left_out} more remarks of this sort were left out.")

    def remark(self, sentence: str) -> None:
        """Longer ones, which name hundreds of CPUs one by one, are cut."""
        if len(sentence) > _LONGEST_REMARK:
            sentence = f"{sentence[: _LONGEST_REMARK - 3]}..."
        if sentence in self._remarks:
            return
        if len(self._remarks) >= MOST_REMARKS:
            self._left_out += 1
        else:
            self._remarks[sentence] = None

    def data(self, path: str, limit: int = SMALL) -> bytes | None:
        """The first ``limit`` bytes of a regular file."""
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            handle = os.open(f"/{path}", flags) if self.live else self._open_below(path, flags | os.O_NOFOLLOW)
        except _NOT_THERE:
            return None
        try:
            if not self.live and not stat.S_ISREG(os.fstat(handle).st_mode):
                return None
            return os.read(handle, limit) if limit <= SMALL else _read(handle, limit)
        except _NOT_THERE:
            return None
        finally:
            os.close(handle)

    def text(self, path: str, limit: int = SMALL) -> str | None:
        """A file's text without blanks, line ends and NULs around it; what is not UTF-8 shows as U+FFFD."""
        data = self.data(path, limit)
        return None if data is None else data.decode("utf-8", "replace").strip("\0 \t\r\n")

    def word(self, path: str) -> str | None:
        """A name that people will see: one line, printable, not longer than 256 characters; ``None`` when empty."""
        return printable(self.text(path) or "") or None

    def number(self, path: str) -> int | None:
        """A decimal number, or a hexadecimal one after ``0x``; ``None`` with a remark when it is something else."""
        text = self.text(path)
        if text is None:
            return None
        number = parse_number(text)
        if number is None and text:
            self.remark(f"/{path} says {printable(text)[:40]!r}, which is not a number that can be.")
        return number

    def numbers(self, path: str) -> tuple[int, ...] | None:
        """A list of CPUs or nodes (``0-3,8``); ``None`` with a remark when it is something else."""
        text = self.text(path)
        if text is None:
            return None
        try:
            return parse_cpu_list(text)
        except ValueError as error:
            self.remark(f"/{path} is no list of numbers: {printable(str(error))}.")
            return None

    def names(self, path: str) -> tuple[str, ...]:
        """What a folder holds, sorted; nothing when it is no folder."""
        place = self._place(path)
        if place is None:
            return ()
        try:
            names = os.listdir(place)  # noqa: PTH208 - thousands of times: Path objects cost more than the call
        except _NOT_THERE:
            return ()
        if len(names) > _MOST_NAMES:
            self.remark(f"/{path} holds {len(names)} entries: only {_MOST_NAMES} were looked at.")
        return tuple(sorted(name for name in names if name.isprintable())[:_MOST_NAMES])

    def exists(self, path: str) -> bool:
        place = self._place(path)
        return place is not None and os.path.lexists(place)

    def link(self, path: str) -> str | None:
        """The last part of where a link leads (``../../bus/pci/drivers/nvme``: ``nvme``)."""
        parent, _, name = path.rpartition("/")
        place = self._place(parent)
        try:
            return printable(os.readlink(f"{place}/{name}").rpartition("/")[2]) if place is not None else None  # noqa: PTH115 - as above
        except _NOT_THERE:
            return None

    def real(self, path: str) -> str | None:
        """The path without links in it, still relative to the root; ``None`` where it leads nowhere."""
        place = self._walk(path)
        if place is None or not os.path.lexists(place):
            return None
        return place[len(self._root) :].lstrip("/")

    def _place(self, path: str) -> str | None:
        """Where a folder lies, all links followed."""
        if self.live:
            return f"/{path}"
        if path in self._folders:
            return self._folders[path]
        parent, _, name = path.rpartition("/")
        above = self._place(parent) if parent else self._root
        place = None
        if above is not None:
            place = f"{above}/{name}"
            if name in {"", ".", ".."} or _is_link(place):
                place = self._walk(path)
        self._folders[path] = place
        return place

    def _open_below(self, path: str, flags: int) -> int:
        parent, _, name = path.rpartition("/")
        folder = self._place(parent)
        if folder is None:
            raise FileNotFoundError(errno.ENOENT, path)
        try:
            return os.open(f"{folder}/{name}", flags)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        place = self._walk(path)
        if place is None:
            raise FileNotFoundError(errno.ENOENT, path)
        return os.open(place, flags)

    def _walk(self, path: str) -> str | None:
        """Follows links part by part, with the root as ``/``: a recording's links mean its own files."""
        pending = path.split("/")[::-1]
        at: list[str] = []
        links = 0
        while pending:
            part = pending.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                del at[-1:]
                continue
            try:
                target = os.readlink("/".join((self._root, *at, part)))  # noqa: PTH115 - as above
            except _NOT_THERE:
                at.append(part)
                continue
            links += 1
            if links > _MOST_LINKS:
                self.remark(f"/{path} is a circle of links: nothing was read there.")
                return None
            if target.startswith("/"):
                at = []
            pending.extend(target.split("/")[::-1])
        return "/".join((self._root, *at)) or "/"


def _is_link(place: str) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(place).st_mode)
    except _NOT_THERE:
        return False


def _read(handle: int, limit: int) -> bytes:
    """procfs hands out a page or so at a time."""
    parts: list[bytes] = []
    left = limit
    while left > 0 and (part := os.read(handle, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def parse_number(text: str) -> int | None:
    """Within 64 bits, or ``None``."""
    digits = text.strip()[:40]
    try:
        number = int(digits, 16) if digits[:2].lower() == "0x" else int(digits)
    except ValueError:
        return None
    return number if -(2**63) <= number < 2**64 else None


def printable(text: str) -> str:
    """What a terminal can be shown: a machine's own words may hold anything."""
    words = "".join(one if one.isprintable() else " " for one in text[: 4 * _LONGEST_WORD])
    return " ".join(words.split())[:_LONGEST_WORD].strip()
