"""Which board of the catalogue a machine is, from what it says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from carmel.hardware.boards.facts import BoardFacts, Recognition
from carmel.hardware.boards.registry import catalogue
from carmel.hardware.model import Board, CpuKind

_LONGEST = 256
"""No DMI string or ``compatible`` that names a board is longer: what is, is compared up to there."""

_Score = tuple[int, int, int]


def identify(board: Board, cpu_kinds: Sequence[CpuKind], sockets: int, *, nodes: int | None = None) -> str | None:
    """The catalogue's id, or ``None`` if it is none of them, or could be two alike.

    Several that fit: the most specific wins. That is first the earliest ``compatible`` of the device tree (they are
    listed most specific first), then the one that demands most of the machine, then the one with the longest pattern.
    ``nodes``, the number of NUMA nodes, tells the modes of one board apart; without it its plain mode is taken.
    """
    scores: dict[str, _Score] = {}
    for facts in catalogue().values():
        found = [_score(one, board, cpu_kinds, sockets, nodes) for one in facts.recognised_by]
        best = max((score for score in found if score is not None), default=None)
        if best is not None and _plausible(facts, cpu_kinds):
            scores[facts.id] = best
    if not scores:
        return None
    top = max(scores.values())
    winners = [board_id for board_id, score in scores.items() if score == top]
    return winners[0] if len(winners) == 1 else None


def _score(
    wanted: Recognition, board: Board, cpu_kinds: Sequence[CpuKind], sockets: int, nodes: int | None
) -> _Score | None:
    """``None``: it is not; else the higher the more specific."""
    place = _place(wanted.compatible, board.compatible)
    cores = sum(len(kind.cpus) for kind in cpu_kinds) // max(sockets, 1)
    midrs = {(kind.implementer, kind.part) for kind in cpu_kinds}
    tests = {
        "compatible": wanted.compatible is None or place is not None,
        "vendor": wanted.vendor is None or _like(board.vendor, wanted.vendor),
        "product": wanted.product is None or _like(board.product, wanted.product),
        "midr": wanted.midr is None or midrs == {(wanted.midr.implementer, wanted.midr.part)},
        "sockets": wanted.sockets is None or sockets == wanted.sockets,
        "cores": wanted.cores is None or wanted.cores[0] <= cores <= wanted.cores[1],
        "nodes": wanted.nodes is None or nodes == wanted.nodes,
    }
    if not all(tests.values()):
        return None
    demands = sum(getattr(wanted, name) is not None for name in tests)
    length = sum(len(text) for text in (wanted.compatible, wanted.vendor, wanted.product) if text)
    return (-place if place is not None else -len(board.compatible), demands, length)


def _place(pattern: str | None, compatible: Sequence[str]) -> int | None:
    """Where in the list of ``compatible`` the pattern is met first."""
    if pattern is None:
        return None
    return next((index for index, one in enumerate(compatible) if _like(one, pattern)), None)


def _like(text: str | None, pattern: str) -> bool:
    return text is not None and fnmatchcase(" ".join(text[:_LONGEST].lower().split()), pattern)


def _plausible(facts: BoardFacts, cpu_kinds: Sequence[CpuKind]) -> bool:
    """Not when the machine's cores are of a kind that this board cannot have: names can be given to anything."""
    known = [kind.midr.value for kind in facts.cores]
    allowed = {(midr.implementer, midr.part) for midr in known if midr is not None}
    if not allowed or len(allowed) < len(known):
        return True
    return all(
        (kind.implementer, kind.part) in allowed
        for kind in cpu_kinds
        if kind.implementer is not None and kind.part is not None
    )
