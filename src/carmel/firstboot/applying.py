"""Brings the system's files to what ``carmel.yaml`` says. Safe to be cut off anywhere: the next boot goes on.

What was written is remembered in ``Paths.firstboot_record``, so that a file that is no longer wanted is taken away
again, and nothing else ever is.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import socket
import stat
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from carmel.errors import CarmelError, InsufficientStorage, Refused
from carmel.firstboot.configuration import MAXIMUM_BYTES, HostConfiguration, parse
from carmel.firstboot.files import File, system_files
from carmel.firstboot.record import ESP, FILE, HOST_KEYS, Record, digest
from carmel.paths import Paths
from carmel.run import Command, Limits, Runner

_LOCKED = "*"


class State(StrEnum):
    """How it went."""

    APPLIED = "Applied"
    UNCHANGED = "Unchanged"
    ABSENT = "Absent"
    REFUSED = "Refused"
    """The file is wrong, or could not be applied: the system stays as it was, or the next boot goes on."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the status page and the journal say. No value of the file is in it: some are secrets."""

    state: State
    message: str
    hint: str | None = None

    def write(self, path: Path) -> None:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _write(path, json.dumps(asdict(self)).encode() + b"\n", 0o644)


class FirstBoot:
    """``root`` is where the system's files are. ``paths`` lie below it."""

    def __init__(self, paths: Paths, runner: Runner, *, root: Path = Path("/")) -> None:
        self._root = root
        self._paths = paths
        self._runner = runner

    async def run(self) -> Report:
        """Never raises for what is wrong with the file or the disk: says so in the report."""
        try:
            with _explained():
                await self._make_host_keys()
                content = self._read()
                if content is None:
                    return self._absent()
                return await self._apply(parse(content), digest(content))
        except CarmelError as exc:
            return Report(State.REFUSED, exc.message, exc.hint)

    def _read(self) -> bytes | None:
        path = self._root / ESP / FILE
        try:
            # What is no file must not be waited for.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                    raise Refused(f"{FILE} is not a file", code="ConfigurationUnreadable")
                return file.read(MAXIMUM_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise Refused(
                f"{FILE} cannot be read: {exc.strerror}",
                code="ConfigurationUnreadable",
                hint="is the EFI system partition damaged? Check it on another machine (fsck.vfat)",
            ) from exc

    def _absent(self) -> Report:
        message = f"there is no {FILE} on the EFI system partition"
        # What an editor of Windows makes of the name.
        if (self._root / ESP / f"{FILE}.txt").exists():
            return Report(State.REFUSED, f"{message}, but a {FILE}.txt", f"rename it to {FILE}, and boot again")
        return Report(State.ABSENT, message, f"copy {FILE}.example there to {FILE}, fill it in, and boot again")

    async def _apply(self, configuration: HostConfiguration, source: str) -> Report:
        wanted = system_files(configuration)
        changed = self._bring_files(wanted)
        changed |= await self._set_password(configuration.console.password_hash)
        shadow = digest((self._root / "etc/shadow").read_bytes())
        self._keep(Record({file.path: digest(file.text.encode()) for file in wanted}, source, shadow))
        name = next(file.text.strip() for file in wanted if file.path == "etc/hostname")
        if self._root == Path("/") and socket.gethostname() != name:
            # The system manager read the old name before we came.
            socket.sethostname(name)
        return (
            Report(State.APPLIED, f"{FILE} was applied") if changed else Report(State.UNCHANGED, f"{FILE} is applied")
        )

    # -- files --------------------------------------------------------------------------------------------------
    def _bring_files(self, wanted: Collection[File]) -> bool:
        """Whether anything had to be changed."""
        before = Record.read(self._paths.firstboot_record).files
        paths = [file.path for file in wanted]
        different = [file for file in wanted if not self._is_there(file)]
        leftover = [path for path in before if path not in paths]
        if not different and not leftover:
            return False
        # First the record of all that may come to be there, so that none is forgotten by a power cut.
        self._keep(Record(dict.fromkeys([*before, *paths], "")))
        for file in different:
            path = self._root / file.path
            self._make_parents(path, private=file.private)
            _write(path, file.text.encode(), 0o600 if file.private else 0o644)
        for leaving in leftover:
            (self._root / leaving).unlink(missing_ok=True)
        return True

    def _is_there(self, file: File) -> bool:
        path = self._root / file.path
        try:
            return path.read_bytes() == file.text.encode() and not (file.private and path.stat().st_mode & 0o077)
        except OSError:
            return False

    def _make_parents(self, path: Path, *, private: bool) -> None:
        """The daemon's own directory is passed through by QEMU's account: 0711, as the daemon makes it."""
        missing = [one for one in path.parents if not one.exists()]
        for one in reversed(missing):
            one.mkdir(mode=0o711 if one == self._paths.state else 0o700 if private else 0o755)

    def _keep(self, record: Record) -> None:
        path = self._paths.firstboot_record
        if Record.read(path) != record:
            self._make_parents(path, private=True)
            _write(path, record.to_bytes(), 0o600)

    # -- what is more than files --------------------------------------------------------------------------------
    async def _set_password(self, wanted: str | None) -> bool:
        lines = (self._root / "etc/shadow").read_text().splitlines()
        current = next((line.split(":")[1] for line in lines if line.startswith("root:")), _LOCKED)
        if current == (wanted or _LOCKED) or (wanted is None and current.startswith("!")):
            return False
        line = f"root:{wanted or _LOCKED}\n".encode()
        root: list[str | Path] = [] if self._root == Path("/") else ["--root", self._root]
        await self._runner.run(Command(["chpasswd", "--encrypted", *root], stdin=line, limits=Limits(seconds=30)))
        return True

    async def _make_host_keys(self) -> None:
        """Each copy of the image has its own. A key that a power cut left empty is made anew."""
        for name in HOST_KEYS:
            key = self._root / name
            kind = name.split("_")[2]
            if all(path.exists() and path.stat().st_size for path in (key, _public(key))):
                continue
            fresh = key.with_name(f".{key.name}.{secrets.token_hex(4)}")
            try:
                words: list[str | Path] = ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "host", "-f", fresh]
                await self._runner.run(Command(words, limits=Limits(seconds=60)))
                _write(_public(key), _public(fresh).read_bytes(), 0o644)
                _write(key, fresh.read_bytes(), 0o600)
            finally:
                for path in (fresh, _public(fresh)):
                    path.unlink(missing_ok=True)


def _public(key: Path) -> Path:
    return key.with_name(f"{key.name}.pub")


def _write(path: Path, content: bytes, mode: int) -> None:
    """Whole or not at all, also over a power cut; never readable by others for a moment."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InsufficientStorage(
                f"the disk is full: {FILE} was not applied to its end", hint="free some space, and boot again"
            ) from exc
        raise Refused(f"{FILE} could not be applied: {exc}", code="ConfigurationNotApplied") from exc
