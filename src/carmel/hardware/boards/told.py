"""A board's facts in words, for people and for documents that programs read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from carmel.hardware.boards.facts import (
    BoardFacts,
    CacheShape,
    CoreFacts,
    Device,
    DeviceKind,
    Fact,
    Midr,
    Recognition,
    Source,
)
from carmel.hardware.model import FirmwareInterface
from carmel.units import human_bytes

T = TypeVar("T")
Words = Callable[[Any], str]


@dataclass(frozen=True, slots=True)
class Told:
    """One fact: ``text`` is ``None`` where no source says it."""

    name: str
    text: str | None
    sources: tuple[Source, ...]


def told(board: BoardFacts) -> Iterator[Told]:
    """Every fact of a board, unknown ones too, in the order in which people ask."""
    yield _one("Sockets", board.sockets, str)
    for kind in board.cores:
        yield from _cores(kind)
    yield _one("Threads in a core", board.threads_per_core, str)
    yield _one("NUMA nodes in a socket", board.nodes_per_socket, str)
    yield _one("Distances", board.distances, _matrix)
    yield _one("Memory", board.memory_options, _sizes)
    yield _one("Memory at most", board.memory_maximum, human_bytes)
    yield _one("GIC", board.gic_version, lambda version: f"v{version}: at most {board.max_vcpus} vCPUs in a VM")
    yield _one("Linux runs at EL2 (VHE)", board.vhe, lambda value: "yes" if value else "no")
    yield _one("Pages", board.page_sizes, lambda sizes: " or ".join(human_bytes(size) for size in sizes))
    yield _one("IOMMU", board.iommu, str)
    yield _one("PCIe", board.pcie, str)
    for device in board.devices:
        yield _one(_kind_of(device), device, _device)
    yield _one("Firmware", board.firmware, str)
    yield _one("Described by", board.interfaces, lambda found: " or ".join(_INTERFACES[one] for one in found))
    yield _one("Clock", board.clock, str)
    for limit in board.limit_facts:
        yield _one("Limit", limit, str)
    for quirk in board.quirk_facts:
        yield _one("Quirk", quirk, str)
    for recognition in board.recognised_by:
        yield Told("Recognised by", recognised(recognition), (recognition.source,))


def memory(board: BoardFacts) -> str | None:
    """In a few words: ``up to 8 TiB``, or the sizes that there are."""
    if board.memory_maximum.value is not None:
        return f"up to {human_bytes(board.memory_maximum.value)}"
    return _sizes(board.memory_options.value) if board.memory_options.value else None


def recognised(wanted: Recognition) -> str:
    """What a machine must say of itself: ``vendor wiwynn, product mt.jade*, 81 to 128 cores in a socket``."""
    words = [("device tree", wanted.compatible), ("vendor", wanted.vendor), ("product", wanted.product)]
    parts = [f"{word} {pattern}" for word, pattern in words if pattern is not None and pattern != "*"]
    parts += [f"MIDR {_midr(wanted.midr)}"] if wanted.midr else []
    parts += [_many(wanted.sockets, "socket")] if wanted.sockets else []
    if wanted.cores:
        low, high = wanted.cores
        parts.append(f"{low if low == high else f'{low} to {high}'} cores in a socket")
    parts += [_many(wanted.nodes, "NUMA node")] if wanted.nodes else []
    return ", ".join(parts)


def document(board: BoardFacts) -> dict[str, Any]:
    """The board as JSON: each fact with its text (``null``: unknown) and its sources."""
    return {
        "id": board.id,
        "name": board.name,
        "vendor": board.vendor,
        "architecture": board.architecture,
        "source": _reference(board.about),
        "sockets": board.sockets.value,
        "coresPerSocket": board.cores_per_socket,
        "numaNodes": board.nodes,
        "maxVCPUs": board.max_vcpus,
        "facts": [
            {"name": one.name, "value": one.text, "sources": [_reference(source) for source in one.sources]}
            for one in told(board)
        ],
    }


def _reference(source: Source) -> dict[str, str]:
    return {"title": source.title, "where": source.where, "url": source.url}


def _one(name: str, one: Fact[T], words: Callable[[T], str]) -> Told:
    return Told(name, None if one.value is None else words(one.value), one.sources)


def _cores(kind: CoreFacts) -> Iterator[Told]:
    yield _one(f"{kind.name} cores in a socket", kind.cores, str)
    yield _one(f"{kind.name}: MIDR", kind.midr, _midr)
    yield _one(f"{kind.name}: cores in a cluster", kind.cluster, str)
    yield _one(f"{kind.name}: fastest", kind.max_frequency_khz, lambda khz: f"{khz / 1_000_000:g} GHz")
    for cache in kind.caches:
        yield _one(f"{kind.name}: cache", cache, _cache)


def _sizes(sizes: tuple[int, ...]) -> str:
    return ", ".join(human_bytes(size) for size in sizes)


def _matrix(rows: tuple[tuple[int, ...], ...]) -> str:
    return " / ".join(" ".join(str(one) for one in row) for row in rows)


def _midr(midr: Midr) -> str:
    return f"implementer {midr.implementer:#04x}, part {midr.part:#05x}"


def _cache(cache: CacheShape) -> str:
    whose = "each core" if cache.shared_by == 1 else f"{cache.shared_by} cores together"
    return f"L{cache.level} {cache.type.value.lower()}, {human_bytes(cache.size_bytes)}, {whose}"


def _kind_of(device: Fact[Device]) -> str:
    return device.value.kind.value if device.value else "Device"


def _device(device: Device) -> str:
    count = "" if device.count == 1 else f"{device.count} x "
    speed = f", {device.speed_mbps} Mbit/s" if device.speed_mbps else ""
    where = f", at socket {device.socket}" if device.kind is DeviceKind.NVME and device.count > 1 else ""
    return f"{count}{device.name}{speed}{where}"


def _many(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


_INTERFACES = {FirmwareInterface.ACPI: "ACPI", FirmwareInterface.DEVICE_TREE: "device tree"}
