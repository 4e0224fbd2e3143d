"""Calls of ``qemu-img``, each a child process in limits, as QEMU's unprivileged user where the daemon is root.

The formats are always named: qemu-img never guesses, so a raw disk whose first bytes its guest wrote can't pose as
something else (QEMU's manual, "qemu-img": probing).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from carmel.errors import CarmelError, InsufficientStorage, Refused
from carmel.run import Command, Limits, ProgramFailed, Runner
from carmel.storage.files import ProcessUser, disk_full
from carmel.storage.inspect import DiskFormat
from carmel.storage.qcow2 import damaged
from carmel.units import GIB, MIB

_QUICK = Limits(seconds=60, cpu_seconds=30, address_space_bytes=2 * GIB, output_bytes=MIB)
_LONG = Limits(seconds=6 * 3600, cpu_seconds=3600, address_space_bytes=2 * GIB, output_bytes=4 * MIB)
_PERCENT = re.compile(r"\((\d{1,3})(?:\.\d+)?/100%\)")
_FILE_TOO_LARGE = "File too large"
_NO_SPACE = "No space left on device"
_LOCKED = "Failed to get "
_SIGXFSZ = 25
_CHECK_FOUND_LEAKS = 3
_CHECK_NOT_SUPPORTED = 63


@dataclass(frozen=True, slots=True)
class QemuImg:
    """``user`` must be able to write the directories it is asked to work in: a datastore's workspaces.

    Files are named relative to their directory, which is entered before the change of user: the way to it may be
    closed to that user.
    """

    runner: Runner
    user: ProcessUser | None = None

    async def convert(
        self,
        source: Path,
        source_format: DiskFormat,
        target: Path,
        *,
        max_bytes: int,
        on_percent: Callable[[int], None] = lambda _percent: None,
    ) -> None:
        """Copy ``source`` into ``target``, a new qcow2 file without a backing file, in the same directory.

        The copy may take at most ``max_bytes``. Raises ``InsufficientStorage`` (``DiskFull``, ``ImageTooLarge``),
        ``Refused`` (``ImageDamaged``). Not durable until the file is synced.
        """

        def line(text: str) -> None:
            if found := _PERCENT.search(text):
                on_percent(min(int(found[1]), 100))

        options = ["convert", "-p", "-f", source_format.value, "-O", "qcow2", "-o", "compat=1.1,lazy_refcounts=off"]
        limits = replace(_LONG, file_size_bytes=max_bytes)
        await self._run(target.parent, [*options, source.name, target.name], limits, on_line=line)

    async def expand(self, source: Path, target: Path) -> None:
        """Write the qcow2 disk ``source`` as raw bytes into ``target``, a new file with holes in the same directory.

        Raises as ``convert`` does.
        """
        await self._run(target.parent, ["convert", "-f", "qcow2", "-O", "raw", source.name, target.name], _LONG)

    async def check(self, file: Path, image_format: DiskFormat) -> None:
        """Raises ``Refused`` (``ImageDamaged``) if the tables of ``file`` are broken or point beyond its end."""
        words = ["check", "-U", "--output=json", "-f", image_format.value, file.name]
        command = self._command(file.parent, words, _LONG)
        result = await self.runner.run(command, check=False)
        if result.status in (0, _CHECK_FOUND_LEAKS, _CHECK_NOT_SUPPORTED):
            return
        if result.status < 0:
            raise _explained(ProgramFailed(command, result))
        raise damaged("its tables are broken or point beyond its end: it was cut off or damaged on the way")

    async def info(self, file: Path, image_format: DiskFormat) -> dict[str, Any]:
        """What qemu-img says of ``file`` alone; a VM may be using it (``-U``)."""
        text = await self._run(
            file.parent, ["info", "-U", "--output=json", "-f", image_format.value, file.name], _QUICK
        )
        try:
            answer = json.loads(text)
        except ValueError as exc:
            raise damaged("qemu-img does not understand it") from exc
        if not isinstance(answer, dict):
            raise damaged("qemu-img does not understand it")
        return answer

    async def create(self, target: Path, size: int, *, backing: str | None = None) -> None:
        """A new qcow2 disk of ``size`` bytes; ``backing`` is the name of a qcow2 file that its header gets, unread."""
        over = [] if backing is None else ["-u", "-b", backing, "-F", "qcow2"]
        await self._run(target.parent, ["create", "-q", "-f", "qcow2", *over, target.name, str(size)], _QUICK)

    async def grow(self, file: Path, size: int) -> None:
        """Raise the capacity of a qcow2 disk that nothing uses. Raises ``Refused`` (``VolumeInUse``, retryable)."""
        await self._run(file.parent, ["resize", "-q", "-f", "qcow2", file.name, str(size)], _QUICK)

    # -- inside -------------------------------------------------------------------------------------------------
    async def _run(
        self, directory: Path, words: list[str], limits: Limits, on_line: Callable[[str], None] | None = None
    ) -> str:
        try:
            return (await self.runner.run(self._command(directory, words, limits), on_line=on_line)).text
        except ProgramFailed as exc:
            raise _explained(exc) from exc

    def _command(self, directory: Path, words: list[str], limits: Limits) -> Command:
        user, group = (None, None) if self.user is None else (self.user.uid, self.user.gid)
        return Command(["qemu-img", *words], cwd=directory, limits=limits, user=user, group=group)


def _explained(failure: ProgramFailed) -> CarmelError:
    words = failure.result.last_words
    if _NO_SPACE in words:
        return disk_full()
    if _FILE_TOO_LARGE in words or failure.result.status == -_SIGXFSZ:
        return InsufficientStorage(
            "the disk unpacks to more than fits into the datastore",
            code="ImageTooLarge",
            hint="free some space in the datastore, or use a larger one",
        )
    if _LOCKED in words:
        return Refused(
            "a running VM uses this disk",
            code="VolumeInUse",
            hint="power the VM off first",
            retryable=True,
        )
    return damaged(f"qemu-img says: {(words.splitlines() or ['nothing'])[-1][:300]}")
