"""Which kernel modules an initramfs needs, and in which order they load.

``dpkg-deb`` unpacks a kernel without ``modules.dep`` (depmod makes that when the package is configured), so the
order is read from the modules themselves: the ``.modinfo`` section of the ELF file holds NUL-ended ``key=value``
strings, of which ``depends=a,b`` and ``softdep=pre: a b post: c`` (modprobe.d(5)) name others. The name of a module
writes ``_`` where its file may write ``-``.
"""

from __future__ import annotations

import asyncio
import lzma
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from carmel.errors import NotFound
from carmel.run import Command, Limits, Runner
from carmel.storage.build.elf import section

_MAXIMUM_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Module:
    """One module, decompressed."""

    name: str
    data: bytes

    @property
    def file_name(self) -> str:
        return f"{self.name}.ko"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a module says it wants: ``before`` must, ``softly_before`` and ``softly_after`` may be loaded around it."""

    before: tuple[str, ...] = ()
    softly_before: tuple[str, ...] = ()
    softly_after: tuple[str, ...] = ()


class ModuleTree:
    """The modules of one kernel: the directory ``lib/modules/VERSION`` of an unpacked kernel package.

    ``builtin``: the names of those that are in the kernel itself.
    """

    def __init__(self, directory: Path, runner: Runner) -> None:
        self._runner = runner
        self.version = directory.name
        self._files = {
            module_name(path.name): path for path in sorted(directory.rglob("*.ko*")) if is_module(path.name)
        }
        builtin = directory / "modules.builtin"
        lines = builtin.read_text().splitlines() if builtin.exists() else []
        self.builtin = frozenset(module_name(Path(line).name) for line in lines)

    def below(self, *folders: str) -> list[str]:
        """The names of all modules below these directories of the kernel's source tree, such as ``drivers/ata``."""
        marks = tuple(f"/kernel/{folder}/" for folder in folders)
        return [name for name, path in self._files.items() if any(mark in str(path) for mark in marks)]

    async def load_order(self, names: Iterable[str], *, optional: Iterable[str] = ()) -> list[Module]:
        """The modules ``names`` and all they need, each behind what it needs. What is built in is left out.

        ``optional`` modules are taken where this kernel has them. Raises ``NotFound`` for a required one that this
        kernel lacks.
        """
        found: dict[str, Module] = {}
        visiting: set[str] = set()

        async def visit(name: str, *, required: bool) -> None:
            if name in found or name in visiting or name in self.builtin:
                return
            path = self._files.get(name)
            if path is None:
                if required:
                    raise NotFound(f"this kernel has no module {name}", code="KernelModuleMissing")
                return
            visiting.add(name)
            data = await self._read(path)
            wanted = parse_wanted(data)
            for other in wanted.softly_before:
                await visit(other, required=False)
            for other in wanted.before:
                await visit(other, required=True)
            found[name] = Module(name, data)
            for other in wanted.softly_after:
                await visit(other, required=False)

        for name in names:
            await visit(module_name(name), required=True)
        for name in optional:
            await visit(module_name(name), required=False)
        return list(found.values())

    async def _read(self, path: Path) -> bytes:
        if path.suffix == ".zst":
            # Python 3.11 has no zstd of its own.
            limits = Limits(seconds=30, output_bytes=_MAXIMUM_BYTES)
            return (await self._runner.run(Command(["zstd", "-dcq", path], limits=limits))).stdout
        return await asyncio.to_thread(_read_plain_or_xz, path)


def is_module(file_name: str) -> bool:
    return file_name.endswith((".ko", ".ko.xz", ".ko.zst"))


def module_name(file_name: str) -> str:
    """``virtio-rng.ko.xz`` is ``virtio_rng``."""
    return file_name.partition(".ko")[0].replace("-", "_")


def parse_wanted(elf: bytes) -> Wanted:
    """What a module's ``.modinfo`` names. Raises ``InternalError`` if ``elf`` is not an ELF file."""
    before: list[str] = []
    softly: dict[str, list[str]] = {"pre:": [], "post:": []}
    for line in section(elf, b".modinfo").split(b"\0"):
        key, _, value = line.decode("utf-8", "replace").partition("=")
        if key == "depends":
            before += [module_name(name) for name in value.split(",") if name]
        elif key == "softdep":
            place = "pre:"
            for word in value.split():
                if word in softly:
                    place = word
                else:
                    softly[place].append(module_name(word))
    return Wanted(tuple(before), tuple(softly["pre:"]), tuple(softly["post:"]))


def parse_aliases(elf: bytes) -> list[str]:
    """The devices and names that a module is the driver of, as patterns (modules.alias)."""
    lines = section(elf, b".modinfo").split(b"\0")
    return [line.removeprefix(b"alias=").decode("utf-8", "replace") for line in lines if line.startswith(b"alias=")]


def _read_plain_or_xz(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data, memlimit=_MAXIMUM_BYTES * 2) if path.suffix == ".xz" else data
