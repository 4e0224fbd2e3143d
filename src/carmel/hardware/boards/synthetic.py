"""A whole machine made from a board's facts, for tests and what-if. What no fact says is assumed, and remarked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from carmel.errors import Invalid
from carmel.hardware.boards import devices
from carmel.hardware.boards.facts import BoardFacts
from carmel.hardware.boards.registry import find_board
from carmel.hardware.boards.shape import Shape, shape_of
from carmel.hardware.model import (
    Board,
    Cache,
    Cpu,
    CpuKind,
    Firmware,
    FirmwareInterface,
    Group,
    Hardware,
    HugePages,
    Kvm,
    NumaNode,
)
from carmel.units import human_bytes

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
_HUGE_PAGES: Final = {
    ("aarch64", 4 * _KIB): (64 * _KIB, 2 * _MIB, 32 * _MIB, _GIB),
    ("aarch64", 16 * _KIB): (2 * _MIB, 32 * _MIB, _GIB),
    ("aarch64", 64 * _KIB): (2 * _MIB, 512 * _MIB, 16 * _GIB),
    ("x86_64", 4 * _KIB): (2 * _MIB, _GIB),
}
"""Sizes that Linux offers by architecture and base page (Documentation/arch/arm64/hugetlbpage.rst,
Documentation/admin-guide/mm/hugetlbpage.rst)."""


def synthetic(
    board_id: str, *, memory_bytes: int | None = None, huge_pages: Mapping[int, int] | None = None
) -> Hardware:
    """A machine as the board's facts describe it: idle, all cores online, memory spread evenly over the nodes.

    ``memory_bytes``: of the whole machine; by default the board's largest option, else 4 GiB a core.
    ``huge_pages``: how many pages of each size (bytes) are reserved on each node; by default none, as after a plain
    boot. Raises ``NotFound`` for an unknown id, ``Invalid`` for memory or huge pages that such a machine cannot have.
    """
    shape = shape_of(find_board(board_id), memory_bytes)
    reserved = _reserved(shape, huge_pages or {})
    sizes = _HUGE_PAGES[shape.board.architecture, shape.page_bytes]
    on_board = devices.placed_devices(shape)
    return Hardware(
        architecture=shape.board.architecture,
        page_bytes=shape.page_bytes,
        cpus=tuple(sorted(_cpus(shape), key=lambda cpu: cpu.id)),
        nodes=tuple(_nodes(shape, sizes, reserved)),
        cpu_kinds=tuple(_cpu_kinds(shape)),
        sockets=tuple(_group(shape, socket, socket, range(shape.cores)) for socket in range(shape.sockets)),
        clusters=tuple(
            _group(shape, number, socket, cores)
            for socket in range(shape.sockets)
            for number, cores in _cluster_ranges(shape)
        ),
        cores=tuple(
            _group(shape, core, socket, range(core, core + 1))
            for socket in range(shape.sockets)
            for core in range(shape.cores)
        ),
        caches=tuple(_caches(shape)),
        huge_pages=_pools(sizes, {size: count * len(shape.node_memory) for size, count in reserved.items()}),
        pci=devices.pci(on_board),
        nvme=devices.nvme(on_board),
        nics=devices.nics(on_board),
        accelerators=devices.accelerators(on_board),
        kvm=Kvm(present=True, gic_version=shape.board.gic_version.value, vhe=shape.board.vhe.value),
        firmware=_firmware(shape.board),
        board=Board(shape.board.vendor, shape.board.name, catalogue_id=shape.board.id),
        remarks=(
            f"No real machine: what the catalogue says of a {shape.board.name}.",
            *shape.remarks,
            *devices.device_remarks(on_board),
        ),
    )


def _cpus(shape: Shape) -> Iterator[Cpu]:
    clusters = {core: cluster for cluster, cores in _cluster_ranges(shape) for core in cores}
    for socket in range(shape.sockets):
        for index, kind in enumerate(shape.kinds):
            for core in range(kind.first, kind.first + kind.count):
                for cpu in shape.cpus(socket, range(core, core + 1)):
                    yield Cpu(
                        id=cpu,
                        socket=socket,
                        core=core,
                        node=shape.node_of(socket, core),
                        cluster=clusters.get(core),
                        kind=index,
                    )


def _cluster_ranges(shape: Shape) -> Iterator[tuple[int, range]]:
    """The clusters of a socket, numbered through its kinds."""
    runs = (run for kind in shape.kinds if kind.cluster > 1 for run in kind.runs(kind.cluster))
    yield from enumerate(runs)


def _group(shape: Shape, number: int, socket: int, cores: range) -> Group:
    return Group(number, tuple(sorted(shape.cpus(socket, cores))), socket)


def _cpu_kinds(shape: Shape) -> Iterator[CpuKind]:
    for kind in shape.kinds:
        cores = range(kind.first, kind.first + kind.count)
        midr = kind.facts.midr.value
        yield CpuKind(
            name=kind.facts.name,
            cpus=tuple(sorted(cpu for socket in range(shape.sockets) for cpu in shape.cpus(socket, cores))),
            implementer=midr.implementer if midr else None,
            part=midr.part if midr else None,
            capacity=kind.facts.capacity.value,
            max_frequency_khz=kind.facts.max_frequency_khz.value,
        )


def _caches(shape: Shape) -> Iterator[Cache]:
    for socket in range(shape.sockets):
        for kind in shape.kinds:
            for cache in (one.value for one in kind.facts.caches if one.value is not None):
                for run in kind.runs(cache.shared_by):
                    yield Cache(cache.level, cache.type, cache.size_bytes, tuple(sorted(shape.cpus(socket, run))))


def _nodes(shape: Shape, sizes: tuple[int, ...], reserved: Mapping[int, int]) -> Iterator[NumaNode]:
    by_node: dict[int, list[int]] = {node: [] for node in range(len(shape.node_memory))}
    for cpu in _cpus(shape):
        by_node[cpu.node].append(cpu.id)
    taken = sum(size * count for size, count in reserved.items())
    for node, memory in enumerate(shape.node_memory):
        yield NumaNode(
            id=node,
            cpus=tuple(sorted(by_node[node])),
            memory_bytes=memory,
            distances=dict(enumerate(shape.distances[node])),
            free_memory_bytes=memory - taken,
            huge_pages=_pools(sizes, reserved),
        )


def _pools(sizes: tuple[int, ...], reserved: Mapping[int, int]) -> tuple[HugePages, ...]:
    return tuple(HugePages(size, total=reserved.get(size, 0), free=reserved.get(size, 0)) for size in sizes)


def _reserved(shape: Shape, huge_pages: Mapping[int, int]) -> Mapping[int, int]:
    """Raises ``Invalid`` for a size that its kernel does not offer, or more pages than a node has memory for."""
    sizes = _HUGE_PAGES[shape.board.architecture, shape.page_bytes]
    for size in huge_pages:
        if size not in sizes:
            offered = ", ".join(human_bytes(one) for one in sizes)
            raise Invalid(
                f"A {shape.board.name} has no huge pages of {human_bytes(size)}.", hint=f"It offers {offered}."
            )
    least = min(shape.node_memory)
    if min(huge_pages.values(), default=0) < 0 or sum(size * count for size, count in huge_pages.items()) > least:
        raise Invalid(
            f"The huge pages do not fit a node's {human_bytes(least)} of memory.", hint="Reserve fewer on each node."
        )
    return huge_pages


def _firmware(board: BoardFacts) -> Firmware:
    interface = board.interfaces.value[0] if board.interfaces.value else None
    return Firmware(uefi=interface is FirmwareInterface.ACPI, interface=interface)
