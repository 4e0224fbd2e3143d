"""The values that builders take and give."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from carmel.run import Runner


@dataclass(frozen=True, slots=True)
class KernelBundle:
    """What direct kernel boot needs. ``command_line`` is complete but for the caller's own words."""

    kernel: Path
    initrd: Path
    command_line: str


@dataclass(frozen=True, slots=True)
class DiskImage:
    """A disk that UEFI boots."""

    path: Path
    format: Literal["qcow2"]
    virtual_size_bytes: int


class ProgressSink(Protocol):
    """Told how far a build is: per cent of the whole, or ``None`` where that is not known, and what is being done."""

    def __call__(self, percent: int | None, message: str) -> None: ...


@dataclass(frozen=True, slots=True)
class BuildContext:
    """What a build works with.

    ``cache`` is kept between builds (``Paths.build_cache``); ``work`` is scratch space on the output's file system;
    ``mirror`` is the address of a Debian archive (see ``sources.find_origin``) that wins over the machine's own.
    ``ready_made`` (``Paths.ready_made``) may hold images that came with this host: they are taken, not built.
    """

    runner: Runner
    cache: Path
    work: Path
    progress: ProgressSink
    mirror: str | None = None
    ready_made: Path | None = None


@dataclass(frozen=True, slots=True)
class Package:
    """One binary package at one version. ``str()`` is how apt-get takes it."""

    name: str
    version: str
    architecture: str

    def __str__(self) -> str:
        return f"{self.name}:{self.architecture}={self.version}"


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a recipe's ``make`` gets: the context, its packages' unpacked or still packed files, an empty directory."""

    context: BuildContext
    packages: tuple[Package, ...]
    archives: Path
    directory: Path


Make = Callable[[Workshop], Awaitable[KernelBundle | DiskImage]]
