"""The shared libraries that programs of unpacked packages need, so that an image holds these and no others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from carmel.errors import InternalError
from carmel.storage.build.cpio import Entry
from carmel.storage.build.elf import needed_libraries


def library_entries(root: Path, programs: Iterable[bytes]) -> Iterator[Entry]:
    """What ``programs`` (the bytes of ELF files) need directly or through others, out of ``root``, as ``/lib/NAME``.

    The dynamic loader looks into /lib by default (ld.so(8)). Raises ``InternalError`` for one that is in no package.
    """
    places = {path.name: path for path in sorted(root.rglob("*.so*"), reverse=True)}
    waiting = [name for program in programs for name in needed_libraries(program)]
    seen = set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in places:
            raise InternalError(f"a program needs the library {name}, which no package of the recipe holds")
        library = places[name].read_bytes()
        yield Entry.file(f"lib/{name}", library, executable=True)
        waiting += needed_libraries(library)
