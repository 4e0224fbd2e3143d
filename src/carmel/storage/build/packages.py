"""A private apt: Debian packages of any architecture, without touching the machine's own package lists.

apt gets directories, an (empty) package database and a configuration of its own, so foreign packages are resolved
as on an empty machine. Release files are verified against the Debian archive keyring, packages against them.
Settings about the way to the mirror (proxies, certificates, credentials) are the machine's. Source: apt.conf(5),
apt-get(8).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from carmel.errors import NotFound, Refused, TimedOut, Unavailable
from carmel.run import Command, Limits, ProgramFailed, Runner
from carmel.storage.build.context import Package, ProgressSink
from carmel.storage.build.files import locked
from carmel.storage.build.sources import Origin

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_LISTS_LAST_SECONDS = 24 * 3600
_INSTALL = re.compile(r"Inst (?P<name>\S+) (?:\[\S+\] )?\((?P<version>\S+) .*\[(?P<architecture>[a-z0-9-]+)\]\)")
_DOWNLOAD_STATUS = re.compile(r"dlstatus:\d+:(?P<percent>[0-9.]+):")
# What of the machine's Acquire settings is about reaching mirrors, not about which index files are wanted.
_KEPT_SETTINGS = (
    "http",
    "https",
    "ftp",
    "proxy",
    "retries",
    "forceipv4",
    "forceipv6",
    "check-valid-until",
    "check-date",
)


class PrivateApt:
    """One suite and architecture. ``directory`` is kept between builds; several processes may use it at once."""

    def __init__(
        self, directory: Path, origin: Origin, architecture: str, runner: Runner, *, keyring: Path | None = None
    ) -> None:
        self._directory = directory
        self._origin = origin
        self._architecture = architecture
        self._runner = runner
        self._keyring = keyring or KEYRING
        self._config = directory / "apt.conf"
        self._stamp = directory / "updated"

    async def resolve(self, names: Sequence[str], progress: ProgressSink) -> tuple[Package, ...]:
        """``names`` and all they depend on (not what they recommend), sorted, as an empty machine would install them.

        Package lists are fetched when they are older than a day; if the mirror is away, older ones will do.

        Raises ``Unavailable`` (code ``MirrorUnavailable``) if there are no lists and no mirror, ``NotFound`` (code
        ``PackageMissing``) for a name that the suite lacks.
        """
        async with locked(self._directory / "lock"):
            await self._prepare()
            await self._refresh(progress)
            return await self._resolve(names)

    async def download(self, packages: Iterable[Package], into: Path, on_percent: Callable[[int], None]) -> None:
        """Fetch the ``.deb`` files into the directory ``into``. Raises ``Unavailable`` when the mirror fails."""
        wanted = [f"{package.name}={package.version}" for package in packages]

        def on_line(line: str) -> None:
            match = _DOWNLOAD_STATUS.match(line)
            if match:
                on_percent(int(float(match["percent"])))

        try:
            await self._apt_get(["-o", "APT::Status-Fd=2", "download", *wanted], cwd=into, on_line=on_line)
        except (ProgramFailed, TimedOut) as exc:
            raise _mirror_failed(exc, "packages could not be fetched") from exc

    async def _prepare(self) -> None:
        if not self._keyring.exists():
            raise Refused(
                "the keys of Debian's archive are not installed",
                code="KeyringMissing",
                hint="install the package debian-archive-keyring",
            )
        settings = (await self._runner.run(Command(["apt-config", "dump", "Acquire"]))).text
        await asyncio.to_thread(self._write_configuration, settings)

    def _write_configuration(self, machine_settings: str) -> None:
        here = self._directory
        for name in ("lists/partial", "archives/partial", "etc/preferences.d", "etc/apt.conf.d", "etc/trusted.gpg.d"):
            (here / name).mkdir(parents=True, exist_ok=True)
        (here / "status").touch()
        (here / "sources.list").write_text(self._origin.one_line(self._keyring))
        ours = {
            "APT::Architecture": self._architecture,
            "APT::Architectures": self._architecture,
            "APT::Install-Recommends": "false",
            # Root would drop to the user _apt, who cannot write into a private directory.
            "APT::Sandbox::User": "root" if os.geteuid() == 0 else "",
            "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "Acquire::IndexTargets::deb::CNF::DefaultEnabled": "false",
            "Dir::State": f"{here}",
            "Dir::State::lists": f"{here}/lists",
            "Dir::State::status": f"{here}/status",
            "Dir::Cache": f"{here}",
            "Dir::Cache::archives": f"{here}/archives",
            "Dir::Etc": f"{here}/etc",
            "Dir::Etc::sourcelist": f"{here}/sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::netrc": "/etc/apt/auth.conf",
            "Dir::Etc::netrcparts": "/etc/apt/auth.conf.d",
        }
        kept = [line for line in machine_settings.splitlines() if _is_kept(line)]
        lines = [*kept, *(f'{name} "{value}";' for name, value in ours.items())]
        self._config.write_text("".join(f"{line}\n" for line in lines))

    async def _refresh(self, progress: ProgressSink) -> None:
        fingerprint = hashlib.sha256(self._origin.one_line(self._keyring).encode()).hexdigest()
        with contextlib.suppress(OSError):
            age = time.time() - self._stamp.stat().st_mtime
            # A clock that was set back makes the age negative: fetch then too.
            if 0 <= age < _LISTS_LAST_SECONDS and self._stamp.read_text() == fingerprint:
                return
        progress(None, "fetching package lists")
        try:
            await self._apt_get(["-o", "APT::Update::Error-Mode=any", "update"])
        except (ProgramFailed, TimedOut) as exc:
            if not self._releases() or not self._stamp.exists() or self._stamp.read_text() != fingerprint:
                raise _mirror_failed(exc, "the package lists could not be fetched") from exc
            progress(None, "the mirror does not answer: using the package lists of the last time")
            return
        await asyncio.to_thread(self._stamp.write_text, fingerprint)

    def _releases(self) -> list[Path]:
        lists = self._directory / "lists"
        return sorted([*lists.glob("*_InRelease"), *lists.glob("*_Release")])

    async def _resolve(self, names: Sequence[str]) -> tuple[Package, ...]:
        memo = await asyncio.to_thread(self._memo, names)
        with contextlib.suppress(OSError, ValueError, TypeError):
            return tuple(Package(*row) for row in json.loads(memo.read_text()))
        try:
            output = await self._apt_get(["--simulate", "install", *names])
        except ProgramFailed as exc:
            raise NotFound(
                f"{self._origin.suite} cannot provide {', '.join(names)}: {_error_line(exc)}",
                code="PackageMissing",
                hint="the mirror may be half-updated: try again later, or name another mirror",
            ) from exc
        packages = tuple(sorted(parse_simulation(output), key=lambda package: package.name))
        rows = json.dumps([[package.name, package.version, package.architecture] for package in packages])
        temporary = memo.with_suffix(".new")
        await asyncio.to_thread(temporary.write_text, rows)
        temporary.replace(memo)
        return packages

    def _memo(self, names: Sequence[str]) -> Path:
        """Where the answer to ``names`` is kept; another file as soon as the lists are others."""
        digest = hashlib.sha256(json.dumps([self._architecture, *sorted(names)]).encode())
        for release in self._releases():
            digest.update(release.read_bytes())
        folder = self._directory / "resolved"
        folder.mkdir(exist_ok=True)
        return folder / f"{digest.hexdigest()[:32]}.json"

    async def _apt_get(
        self, words: Sequence[str], *, cwd: Path | None = None, on_line: Callable[[str], None] | None = None
    ) -> str:
        command = Command(
            ["apt-get", "-q", *words],
            env={"APT_CONFIG": str(self._config), "DEBIAN_FRONTEND": "noninteractive"},
            cwd=cwd,
            limits=Limits(seconds=900, output_bytes=16 * 1024 * 1024),
        )
        return (await self._runner.run(command, on_line=on_line)).text


def parse_simulation(output: str) -> list[Package]:
    """The packages that ``apt-get --simulate install`` would install, in its order of unpacking."""
    matches = (_INSTALL.match(line) for line in output.splitlines())
    return [
        Package(match["name"].partition(":")[0], match["version"], match["architecture"]) for match in matches if match
    ]


def _is_kept(line: str) -> bool:
    words = line.split("::", 2)
    return len(words) > 1 and words[0] == "Acquire" and re.split(r'[ ":]', words[1])[0].lower() in _KEPT_SETTINGS


def _mirror_failed(exc: ProgramFailed | TimedOut, what: str) -> Unavailable:
    return Unavailable(
        f"{what}: {_error_line(exc) if isinstance(exc, ProgramFailed) else exc.message}",
        code="MirrorUnavailable",
        hint="check the network and this machine's apt sources (does apt-get update work?), then build again",
    )


def _error_line(exc: ProgramFailed) -> str:
    lines = exc.result.last_words.splitlines()
    return next((line[3:] for line in lines if line.startswith("E: ")), exc.message)
