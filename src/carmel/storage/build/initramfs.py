"""What every initramfs of ours has: busybox, the directories and the kernel modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from carmel.errors import InternalError
from carmel.run import Command
from carmel.storage.build.context import BuildContext
from carmel.storage.build.cpio import Entry
from carmel.storage.build.files import in_thread
from carmel.storage.build.modules import Module

_DIRECTORIES = ("dev", "mnt", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "usr/sbin")


async def unpack(context: BuildContext, archives: Path, into: Path, prefixes: tuple[str, ...] = ("",)) -> None:
    """Unpack the packages in ``archives`` whose file names start with one of ``prefixes`` into the new ``into``."""
    for package in await in_thread(_prepare, archives, into, prefixes):
        await context.runner.run(Command(["dpkg-deb", "--extract", package, into]))


def _prepare(archives: Path, into: Path, prefixes: tuple[str, ...]) -> list[Path]:
    into.mkdir()
    return [path for path in sorted(archives.glob("*.deb")) if path.name.startswith(prefixes)]


def base_entries(root: Path, *, users: str = "", groups: str = "") -> Iterator[Entry]:
    """Busybox from the unpacked packages in ``root``, and what the kernel and it expect to be there.

    ``users`` and ``groups`` are lines of passwd(5) and group(5) beside root's.
    """
    busybox = only(root.glob("**/bin/busybox"), "busybox")
    yield Entry.file("bin/busybox", busybox.read_bytes(), executable=True)
    yield Entry.symlink("bin/sh", "busybox")
    # The kernel opens it for /init, before anything is mounted.
    yield Entry.character_device("dev/console", 5, 1)
    yield Entry.file("etc/passwd", b"root::0:0:root:/root:/bin/sh\n" + users.encode())
    yield Entry.file("etc/group", b"root:x:0:\n" + groups.encode())
    for path in _DIRECTORIES:
        yield Entry.directory(path)


def module_entries(modules: Sequence[Module]) -> Iterator[Entry]:
    """The modules, and ``/etc/modules`` that lists their files in the order to load them."""
    for module in modules:
        yield Entry.file(f"lib/modules/{module.file_name}", module.data)
    yield Entry.file("etc/modules", "".join(f"{module.file_name}\n" for module in modules).encode())


def only(paths: Iterable[Path], what: str) -> Path:
    """The one path, or the last by name if there are several. Raises ``InternalError`` if there is none."""
    found = sorted(paths)
    if not found:
        raise InternalError(f"the packages hold no {what}")
    return found[-1]
