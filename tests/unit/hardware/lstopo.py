"""hwloc's reading of a machine, from what ``lstopo -v --of console`` prints: a peer's opinion to compare with."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

_OBJECT = re.compile(r"^( *)([A-Za-z0-9]+)(?:\((\w+)\))?(?: L#(\d+))? \((.*)\)$")
_ROW = re.compile(r"^ +(\d+) +((?:\d+ *)+)$")
_UNIT = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


@dataclass(slots=True)
class Seen:
    """One object of hwloc's tree. ``cpus`` are the P# of the PUs below it; a NUMA node's are its parent's."""

    type: str
    words: dict[str, str]
    os_index: int | None
    parent: Seen | None
    children: list[Seen] = field(default_factory=list)

    @property
    def cpus(self) -> tuple[int, ...]:
        if self.type == "NUMANode":
            assert self.parent is not None
            return self.parent.cpus
        return tuple(sorted(self._pus()))

    def _pus(self) -> Iterator[int]:
        if self.type == "PU":
            assert self.os_index is not None
            yield self.os_index
        for child in self.children:
            if child.type != "NUMANode":
                yield from child._pus()

    def size(self, word: str) -> int:
        """Bytes, rounded as hwloc prints them."""
        match = re.fullmatch(r"(\d+)(KiB|MiB|GiB)", self.words[word])
        assert match is not None
        return int(match[1]) * _UNIT[match[2]]


@dataclass(slots=True)
class Console:
    objects: list[Seen]
    latencies: list[list[int]]
    infos: dict[str, str]
    capacity: int | None

    def of(self, type_: str) -> list[Seen]:
        return [one for one in self.objects if one.type == type_]


def parse_console(text: str) -> Console:
    """Every line is understood, or it is an error: what is overlooked would not be compared."""
    found = Console([], [], {}, None)
    above: list[tuple[int, Seen]] = []
    for line in text.splitlines():
        if match := _OBJECT.match(line):
            indent = len(match[1])
            while above and above[-1][0] >= indent:
                above.pop()
            parent = above[-1][1] if above else None
            seen = _object(match, parent)
            if parent is not None:
                parent.children.append(seen)
            found.objects.append(seen)
            above.append((indent, seen))
        elif match := _ROW.match(line):
            found.latencies.append([int(word) for word in match[2].split()])
        elif line.startswith("Topology infos: "):
            found.infos = dict(word.split("=", 1) for word in shlex.split(line.removeprefix("Topology infos: ")))
        elif match := re.match(r"^  LinuxCapacity = (\d+)$", line):
            found.capacity = int(match[1])
        else:
            assert re.match(
                r"^ *depth \d|^Special depth|^Relative latency|^ index |^CPU kind #0|^Topology not", line
            ), line
    found.latencies = found.latencies[1:] if found.latencies and found.latencies[0] == [1, 2, 3] else found.latencies
    return found


def _object(match: re.Match[str], parent: Seen | None) -> Seen:
    words: dict[str, str] = {}
    os_index = None
    for word in shlex.split(match[5]):
        if word.startswith("P#"):
            os_index = int(word[2:])
        else:
            key, _, value = word.partition("=")
            words[key] = value
    return Seen(match[3] or match[2], words, os_index, parent)
