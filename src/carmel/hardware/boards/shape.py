"""A board's facts with every gap filled, and the sentences that say with what: the numbers of a synthetic machine."""

from __future__ import annotations

from dataclasses import dataclass

from carmel.errors import Invalid
from carmel.hardware.boards.facts import UNKNOWN, BoardFacts, CoreFacts
from carmel.units import GIB, format_bytes, human_bytes

_BYTES_A_CORE = 4 * GIB
_CORES = 4
_PAGE_BYTES = 4096
_LOCAL, _REMOTE = 10, 20
"""What Linux takes where the firmware has no SLIT (include/linux/topology.h: LOCAL_DISTANCE, REMOTE_DISTANCE)."""


@dataclass(frozen=True, slots=True)
class Cores:
    """The cores of one kind: numbers ``first`` to ``first + count - 1`` of each socket, ``cluster`` of them in each
    cluster (1: they form none)."""

    facts: CoreFacts
    first: int
    count: int
    cluster: int

    def runs(self, length: int) -> tuple[range, ...]:
        """Neighbouring cores, ``length`` at a time."""
        last = self.first + self.count
        return tuple(range(start, min(start + length, last)) for start in range(self.first, last, length))


@dataclass(frozen=True, slots=True)
class Shape:
    """``nodes`` and ``cores`` are those of one socket, ``threads`` those of one core; node memory is in bytes."""

    board: BoardFacts
    sockets: int
    nodes: int
    threads: int
    kinds: tuple[Cores, ...]
    node_memory: tuple[int, ...]
    distances: tuple[tuple[int, ...], ...]
    page_bytes: int
    remarks: tuple[str, ...]

    @property
    def cores(self) -> int:
        return sum(kind.count for kind in self.kinds)

    def node_of(self, socket: int, core: int) -> int:
        """Nodes take a socket's cores in order and in equal parts."""
        return socket * self.nodes + core * self.nodes // self.cores

    def cpus(self, socket: int, cores: range) -> tuple[int, ...]:
        """All first threads have the lower numbers, all second ones follow, as Linux numbers them on x86-64."""
        return tuple(
            (thread * self.sockets + socket) * self.cores + core for thread in range(self.threads) for core in cores
        )


class _Gaps:
    """Takes facts, and notes what was put in the place of unknown ones."""

    def __init__(self) -> None:
        self.remarks: list[str] = []

    def fill(self, value: int | None, assumed: int, what: str) -> int:
        if value is None:
            self.remarks.append(f"Assumed, for no source says it: {what}.")
            return assumed
        return value


def shape_of(board: BoardFacts, memory_bytes: int | None) -> Shape:
    """Raises ``Invalid`` for an amount of memory that the board cannot have."""
    gaps = _Gaps()
    sockets = gaps.fill(board.sockets.value, 1, "one socket")
    nodes = gaps.fill(board.nodes_per_socket.value, 1, "one NUMA node in each socket")
    threads = gaps.fill(board.threads_per_core.value, 1, "one thread in each core")
    kinds = _kinds(board, gaps)
    cores = sum(kind.count for kind in kinds)
    pages = board.page_sizes.value
    page_bytes = gaps.fill(pages[0] if pages else None, _PAGE_BYTES, f"pages of {human_bytes(_PAGE_BYTES)}")
    memory = _memory(board, memory_bytes, cores * sockets, gaps)
    return Shape(
        board=board,
        sockets=sockets,
        nodes=nodes,
        threads=threads,
        kinds=kinds,
        node_memory=_spread(memory, sockets * nodes, page_bytes),
        distances=_distances(board, sockets * nodes, gaps),
        page_bytes=page_bytes,
        remarks=tuple(gaps.remarks),
    )


def _kinds(board: BoardFacts, gaps: _Gaps) -> tuple[Cores, ...]:
    kinds: list[Cores] = []
    first = 0
    for facts in board.cores or (CoreFacts(name="unknown", cores=UNKNOWN),):
        count = gaps.fill(facts.cores.value, _CORES, f"{_CORES} cores in each socket")
        cluster = gaps.fill(facts.cluster.value, 1, f"{facts.name} cores that form no clusters")
        kinds.append(Cores(facts, first, count, cluster))
        first += count
    return tuple(kinds)


def _memory(board: BoardFacts, wanted: int | None, cores: int, gaps: _Gaps) -> int:
    if wanted is None:
        options = board.memory_options.value
        what = f"{human_bytes(_BYTES_A_CORE)} of memory a core"
        return max(options) if options else gaps.fill(None, cores * _BYTES_A_CORE, what)
    largest = board.memory_maximum.value
    if wanted < GIB // 4:
        raise Invalid(f"{human_bytes(wanted)} is too little memory for a host.", hint="Give at least 256Mi.")
    if largest is not None and wanted > largest:
        raise Invalid(
            f"A {board.name} takes at most {human_bytes(largest)} of memory, not {human_bytes(wanted)}.",
            hint=f"Give at most {format_bytes(largest)}.",
        )
    return wanted


def _spread(memory: int, nodes: int, page_bytes: int) -> tuple[int, ...]:
    """In equal parts of whole pages; the first node has what remains."""
    share = memory // nodes // page_bytes * page_bytes
    return (memory // page_bytes * page_bytes - share * (nodes - 1), *[share] * (nodes - 1))


def _distances(board: BoardFacts, nodes: int, gaps: _Gaps) -> tuple[tuple[int, ...], ...]:
    known = board.distances.value
    if known is not None:
        return known
    if nodes > 1:
        what = f"a distance of {_REMOTE} between nodes, as Linux does where the firmware says none"
        gaps.fill(None, _REMOTE, what)
    return tuple(tuple(_LOCAL if one == other else _REMOTE for other in range(nodes)) for one in range(nodes))
