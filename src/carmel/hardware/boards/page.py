"""The part of docs/boards.md that is generated from the catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from carmel.hardware.boards.facts import BoardFacts
from carmel.hardware.boards.registry import catalogue
from carmel.hardware.boards.told import Told, memory, told

MARK: Final = "<!-- What follows is generated from src/carmel/hardware/boards by `make generate`. -->"
_ALIKE = 0.6
"""The share of facts in common from which on a board is told by what differs."""


def page(text: str) -> str:
    """The page anew: what stands before ``MARK`` is kept."""
    kept = text.partition(MARK)[0].rstrip()
    return "\n".join((kept, "", MARK, "", *_overview(), *_boards())) + "\n"


def _overview() -> Iterator[str]:
    yield "## All boards"
    yield ""
    yield "An empty cell is a fact that no source was found for."
    yield ""
    yield "| id | board | sockets x cores | NUMA nodes | memory | GIC | vCPUs in a VM at most |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for board in catalogue().values():
        cells = (
            f"[`{board.id}`](#{board.id})",
            board.name,
            _silicon(board),
            board.nodes or "",
            memory(board) or "",
            f"v{board.gic_version.value}" if board.gic_version.value else "",
            board.max_vcpus or "",
        )
        yield f"| {' | '.join(str(one) for one in cells)} |"


def _silicon(board: BoardFacts) -> str:
    kinds = " + ".join(f"{kind.cores.value or '?'} {kind.name}" for kind in board.cores)
    sockets = board.sockets.value
    return f"{sockets} x {kinds}" if sockets and sockets > 1 and kinds else kinds


def _boards() -> Iterator[str]:
    earlier: list[BoardFacts] = []
    for board in catalogue().values():
        yield from ("", f'<a id="{board.id}"></a>', "", f"### `{board.id}`: {board.name}", "")
        yield from _board(board, earlier)
        earlier.append(board)


def _board(board: BoardFacts, earlier: Sequence[BoardFacts]) -> Iterator[str]:
    rows = list(told(board))
    like = max(earlier, key=lambda other: _in_common(rows, other), default=None)
    if like is not None and _in_common(rows, like) >= _ALIKE * len(rows):
        same = set(told(like))
        yield f"As `{like.id}`, but for:"
        yield ""
        yield from _table([row for row in rows if row not in same])
        return
    known = [row for row in rows if row.text is not None]
    if known:
        yield from _table(known)
    if unknown := ", ".join(row.name for row in rows if row.text is None):
        yield from ("", f"Unknown: {unknown}.")


def _in_common(rows: Sequence[Told], other: BoardFacts) -> int:
    return len(set(rows) & set(told(other)))


def _table(rows: Sequence[Told]) -> Iterator[str]:
    yield "| fact | value | source |"
    yield "| --- | --- | --- |"
    for row in rows:
        sources = "; ".join(f"[{one.title}]({one.url}), {one.where}" for one in row.sources)
        yield f"| {row.name} | {_escaped(row.text or 'unknown')} | {_escaped(sources)} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*")
