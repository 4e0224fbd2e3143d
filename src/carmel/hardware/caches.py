"""Caches and the CPUs that share them (Linux, Documentation/ABI/testing/sysfs-devices-system-cpu, cache/index*).

Device trees describe them too (Devicetree Specification 0.4, 3.8 and 3.9), for kernels that show none in sysfs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from carmel.cpulist import format_cpu_list
from carmel.hardware import devicetree
from carmel.hardware.cpus import CPUS
from carmel.hardware.model import Cache, CacheType, Group
from carmel.hardware.sysroot import Sysroot

_INDEX = re.compile(r"index\d{1,2}", re.ASCII)
_SIZE = re.compile(r"(\d{1,12})([KMG]?)", re.ASCII)
_UNIT = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_LEVELS = range(1, 9)
_TYPES = frozenset(CacheType)
_Kind = tuple[int, CacheType]


def read_caches(root: Sysroot, cpus: tuple[int, ...], cores: tuple[Group, ...]) -> tuple[Cache, ...]:
    """The nearest first, then by CPU."""
    found = _described(root, _from_sysfs(root, cpus), cores)
    if not found and (tree := devicetree.base(root)) is not None:
        found = _from_device_tree(root, tree, cpus)
    return tuple(sorted(found, key=lambda cache: (cache.level, cache.type, cache.cpus)))


def _described(root: Sysroot, caches: list[Cache], cores: tuple[Group, ...]) -> list[Cache]:
    """An arm64 kernel to which ACPI says nothing of caches knows their levels from CLIDR_EL1, and takes each for one
    that all CPUs share (drivers/base/cacheinfo.c)."""
    largest = max(len(core.cpus) for core in cores)
    if not any(one.level == 1 and one.size_bytes is None and len(one.cpus) > largest for one in caches):
        return caches
    root.remark("The firmware does not describe the caches: they are left out.")
    return [one for one in caches if one.size_bytes is not None]


def _from_sysfs(root: Sysroot, cpus: tuple[int, ...]) -> list[Cache]:
    online = set(cpus)
    sharing: dict[_Kind, dict[int, tuple[int, ...]]] = {}
    caches: list[Cache] = []
    doubtful: dict[_Kind, list[int]] = {}
    for cpu in cpus:
        folder = f"{CPUS}/cpu{cpu}/cache"
        for name in filter(_INDEX.fullmatch, root.names(folder)):
            kind = _kind(root, f"{folder}/{name}")
            if kind is None:
                continue
            shared = tuple(one for one in root.numbers(f"{folder}/{name}/shared_cpu_list") or (cpu,) if one in online)
            taken = sharing.setdefault(kind, {})
            if taken.get(cpu) == shared:
                continue
            if cpu not in shared or any(one in taken for one in (cpu, *shared)):
                doubtful.setdefault(kind, []).append(cpu)
                continue
            taken.update(dict.fromkeys(shared, shared))
            caches.append(_describe(root, f"{folder}/{name}", kind, shared))
    for (level, type_), claimed in doubtful.items():
        root.remark(
            f"What is said of who shares the L{level} {type_.value.lower()} caches of CPUs {format_cpu_list(claimed)} "
            "contradicts itself: what was said first was taken."
        )
    return caches


def _kind(root: Sysroot, path: str) -> _Kind | None:
    level, type_ = root.number(f"{path}/level"), root.text(f"{path}/type")
    if level is None or level not in _LEVELS or type_ not in _TYPES:
        return None
    return level, CacheType(type_)


def _describe(root: Sysroot, path: str, kind: _Kind, cpus: tuple[int, ...]) -> Cache:
    size = _size(root.text(f"{path}/size") or "")
    line = _positive(root.number(f"{path}/coherency_line_size"))
    sets = _positive(root.number(f"{path}/number_of_sets"))
    lines_per_tag = _positive(root.number(f"{path}/physical_line_partition")) or 1
    said = _positive(root.number(f"{path}/ways_of_associativity"))
    ways = size // (line * sets * lines_per_tag) if size and line and sets else said
    if said is not None and ways is not None and said != ways:
        root.remark(
            f"The L{kind[0]} {kind[1].value.lower()} caches are said to have {said} ways, but their size, lines and "
            f"sets make {ways}: taken as {ways}."
        )
    return Cache(level=kind[0], type=kind[1], size_bytes=size, cpus=cpus, line_bytes=line, ways=ways or None)


def _positive(number: int | None) -> int | None:
    return number if number is not None and 0 < number < 2**32 else None


def _size(text: str) -> int | None:
    match = _SIZE.fullmatch(text)
    return int(match[1]) * _UNIT[match[2]] or None if match else None


@dataclass(slots=True)
class _Level:
    """A cache in the tree: where its properties are, and who leads to it."""

    node: str
    level: int
    cpus: list[int]


def _from_device_tree(root: Sysroot, tree: str, cpus: tuple[int, ...]) -> list[Cache]:
    nodes = devicetree.cpu_nodes(root, cpus)
    caches = [
        _property(root, node, prefix, _Level(node, 1, [cpu]), type_)
        for cpu, node in nodes.items()
        for prefix, type_ in (("i-", CacheType.INSTRUCTION), ("d-", CacheType.DATA))
        if root.exists(f"{node}/{prefix}cache-size")
    ]
    handles = {
        handle: place for place in _cache_nodes(root, tree) if (handle := devicetree.cell(root, f"{place}/phandle"))
    }
    shared: dict[str, _Level] = {}
    for cpu, node in nodes.items():
        place: str | None = node
        for depth in _LEVELS[1:]:
            place = handles.get(devicetree.cell(root, f"{place}/next-level-cache") or 0)
            if place is None:
                break
            shared.setdefault(place, _Level(place, depth, [])).cpus.append(cpu)
    return caches + [_property(root, place, "", one, CacheType.UNIFIED) for place, one in shared.items()]


def _cache_nodes(root: Sysroot, tree: str) -> list[str]:
    """Nodes called ``...cache...`` (3.9.1 recommends it) at the root, below /cpus, or in a CPU."""
    places = [tree, f"{tree}/cpus", *(f"{tree}/cpus/{name}" for name in root.names(f"{tree}/cpus") if "@" in name)]
    return [f"{place}/{name}" for place in places for name in root.names(place) if "cache" in name.lower()]


def _property(root: Sysroot, node: str, prefix: str, level: _Level, type_: CacheType) -> Cache:
    size, line, sets = (
        _positive(devicetree.cell(root, f"{node}/{prefix}cache-{name}")) for name in ("size", "line-size", "sets")
    )
    return Cache(
        level=level.level,
        type=type_,
        size_bytes=size,
        cpus=tuple(sorted(level.cpus)),
        line_bytes=line,
        ways=size // (line * sets) or None if size and line and sets else None,
    )
