"""What every initramfs of ours has: busybox, the directories and the kernel modules."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from carmel.errors import InternalError
from carmel.run import Command
from carmel.storage.build.context import BuildContext
from carmel.storage.build.cpio import Entry
from carmel.storage.build.files import in_thread
from carmel.storage.build.modules import Module, module_name, parse_aliases, parse_wanted

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


def modprobe_entries(version: str, modules: Sequence[Module], builtin: Collection[str] = ()) -> Iterator[Entry]:
    """The modules with ``modules.dep`` and ``modules.alias`` of depmod(8), which busybox's modprobe reads.

    ``modules``: each behind what it needs. ``builtin``: who asks modprobe for one of these is told that it is there.
    The kernel asks modprobe too, for what it misses: a driver of tc, an expression of nftables.
    """
    place = f"lib/modules/{version}"
    needed: dict[str, list[str]] = {}
    lines, aliases = [], []
    for module in modules:
        yield Entry.file(f"{place}/{module.file_name}", module.data)
        direct = [name for name in parse_wanted(module.data).before if name in needed]
        # All of them, as modprobe does not look further, and each before what it needs: modprobe begins at the end.
        needs = {name for one in direct for name in (one, *needed[one])}
        needed[module.name] = [name for name in reversed(needed) if name in needs]
        lines.append(f"{module.file_name}: {' '.join(f'{name}.ko' for name in needed[module.name])}".rstrip() + "\n")
        aliases += [f"alias {alias} {module_name(module.name)}\n" for alias in parse_aliases(module.data)]
    yield Entry.file(f"{place}/modules.dep", "".join(lines).encode())
    yield Entry.file(f"{place}/modules.alias", "".join(aliases).encode())
    yield Entry.file(f"{place}/modules.builtin", "".join(f"{name}.ko\n" for name in sorted(builtin)).encode())


def only(paths: Iterable[Path], what: str) -> Path:
    """The one path, or the last by name if there are several. Raises ``InternalError`` if there is none."""
    found = sorted(paths)
    if not found:
        raise InternalError(f"the packages hold no {what}")
    return found[-1]
