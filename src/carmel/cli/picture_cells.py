"""Rows of CPU cells: clusters apart from each other, the first CPU's number before each row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from carmel.cli.picture_ink import Charset, Ink, Line, Span
from carmel.cli.picture_scene import LETTERS, Cell, Cores, Mark

MOST_IN_A_ROW = 32
"""CPUs: more are hard to count by eye."""


def cell_rows(cores: Cores, width: int, charset: Charset) -> Iterator[Line]:
    """Lines of at most ``width`` columns."""
    label = len(str(max(cell.cpu for cell in cores.cells)))
    for row in _rows(cores.groups, width - label - 1):
        number = Span(str(row[0][0].cpu).rjust(label), Ink.FAINT)
        spans: list[str | Span] = [number]
        for group in row:
            spans += [" ", *(_span(cell, charset) for cell in group)]
        yield Line.of(*spans)


def natural_width(cores: Cores) -> int:
    """The width that rows have where there is room enough."""
    label = len(str(max(cell.cpu for cell in cores.cells)))
    rows = _rows(cores.groups, 2 * MOST_IN_A_ROW)
    return label + max(sum(len(group) + 1 for group in row) for row in rows)


def _rows(groups: Sequence[tuple[Cell, ...]], width: int) -> list[list[tuple[Cell, ...]]]:
    """Groups packed into rows: all rows alike where groups are, no group broken that fits a row."""
    most = max(1, min(width, MOST_IN_A_ROW))
    pieces = [piece for group in groups for piece in _pieces(group, most)]
    if len({len(piece) for piece in pieces}) == 1:
        size = len(pieces[0])
        in_row = _even(len(pieces), max(1, min((width + 1) // (size + 1), MOST_IN_A_ROW // size)))
        return [pieces[start : start + in_row] for start in range(0, len(pieces), in_row)]
    rows: list[list[tuple[Cell, ...]]] = [[]]
    for piece in pieces:
        row = rows[-1]
        if row and sum(len(one) + 1 for one in row) + len(piece) > width:
            rows.append([])
        rows[-1].append(piece)
    return rows


def _pieces(group: tuple[Cell, ...], most: int) -> list[tuple[Cell, ...]]:
    size = _even(len(group), most)
    return [group[start : start + size] for start in range(0, len(group), size)]


def _even(total: int, most: int) -> int:
    """How many to put in a row so that all rows are alike, if that does not take many more rows."""
    if total <= most:
        return total
    fair = next((size for size in range(most, most // 2, -1) if total % size == 0), None)
    return fair or most


def _span(cell: Cell, charset: Charset) -> Span:
    match cell.mark:
        case Mark.DEDICATED:
            return Span(cell.letter, Ink.VM, number_of(cell.letter))
        case Mark.SHARED:
            return Span(charset.shared, Ink.SHARED)
        case Mark.RESERVED:
            return Span(charset.reserved, Ink.FAINT)
        case Mark.UNKNOWN:
            return Span(charset.unknown)
    return Span(charset.free)


def number_of(letter: str) -> int:
    """Which colour a VM's letter has."""
    return max(0, LETTERS.find(letter))
