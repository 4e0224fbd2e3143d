"""Draws a SmartNIC: the host on the left, the NIC on the right, and each function as the line that joins them.

Where the terminal is too narrow for that, each function has two lines: where it is on the host, and on the NIC.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from carmel.cli.picture_ink import ASCII, Charset, Ink, Line, Span
from carmel.cli.smartnic_scene import NicScene, Seat, Uplink

NARROWEST = 40
_GAP = "  "
_HEADS = ("host", "PCI address", "node", "function", "representor", "network", "uplink")
_ON_THE_NIC = 4
"""The first column that is beyond PCI Express."""
_NEVER_LEFT_OUT = frozenset({0, 3, _ON_THE_NIC})
_FIRST_TO_GO = (2, 6, 1)


@dataclass(frozen=True, slots=True)
class _Wires:
    """``bus`` is PCI Express between host and NIC, ``net`` what frames go along on the NIC."""

    bus: str
    net: str
    up: str
    down: str


_PLAIN = _Wires("==", "--", "up", "down")
_DRAWN = _Wires("══", "──", "▲", "▼")


def draw_nic(scene: NicScene, width: int, charset: Charset) -> list[Line]:
    """Lines of at most ``width`` columns, of which ``NARROWEST`` are the least."""
    width = max(width, NARROWEST)
    wires = _PLAIN if charset is ASCII else _DRAWN
    lines = [*_title(scene, width, charset)]
    wide = next((table for table in _tables(scene, wires) if max(map(len, table)) <= width), None)
    if wide is not None:
        lines += wide
    else:
        lines += [line for pair in enumerate(scene.seats) for line in _narrow(*pair, width, wires, charset)]
    if not scene.seats:
        lines.append(Line.of(Span("it shows no functions", Ink.FAINT)))
    lines += _uplinks(scene.uplinks, width, wires, charset)
    rest = (
        ("Networks", scene.networks),
        ("Shown by no function", scene.unshown),
        ("Cannot be used", _notes(scene.seats)),
    )
    for title, sentences in rest:
        lines += _list(title, sentences, width)
    return lines


def _title(scene: NicScene, width: int, charset: Charset) -> Iterator[Line]:
    where = f" of host {scene.host}" if scene.host else ""
    yield Line.of(Span(_fit(f"SmartNIC {scene.name}{where}", width, charset), Ink.TITLE))
    yield from _wrapped(", ".join(scene.facts), width, Ink.PLAIN)
    if scene.wrong:
        yield from _wrapped(f"not ready: {scene.wrong}", width, Ink.TITLE)
    yield Line()


# -- side by side -----------------------------------------------------------------------------------------------------
def _tables(scene: NicScene, wires: _Wires) -> Iterator[list[Line]]:
    """The whole, then with fewer and fewer columns. One that says nothing is left out of all."""
    if not scene.seats:
        return
    rows = [_cells(seat) for seat in scene.seats]
    told = {index for index in range(len(_HEADS)) if any(row[index] for row in rows)} | _NEVER_LEFT_OUT
    for dropped in range(len(_FIRST_TO_GO) + 1):
        yield list(_table(scene, rows, sorted(told - set(_FIRST_TO_GO[:dropped])), wires))


def _table(scene: NicScene, rows: Sequence[Sequence[str]], shown: Sequence[int], wires: _Wires) -> Iterator[Line]:
    widths = [max(len(head), *(len(row[index]) for row in rows)) for index, head in enumerate(_HEADS)]
    yield Line.of(Span(_joined(_HEADS, widths, shown, _Wires("  ", "  ", "", "")), Ink.FAINT))
    for number, (seat, row) in enumerate(zip(scene.seats, rows, strict=True)):
        whole = _joined(row, widths, shown, wires)
        ink = Ink.VM if seat.vm else Ink.FAINT
        yield Line.of(Span(whole[: widths[0]], ink, number), whole[widths[0] :])


def _cells(seat: Seat) -> tuple[str, ...]:
    first = seat.vm or seat.state.lower()
    return (first, seat.address, seat.node, seat.function, _representor(seat), seat.network, seat.uplink)


def _representor(seat: Seat) -> str:
    if not seat.representor:
        return "-"
    return seat.representor if seat.up is not False else f"{seat.representor} (down)"


def _joined(cells: Sequence[str], widths: Sequence[int], shown: Sequence[int], wires: _Wires) -> str:
    parts = []
    for index in shown:
        text = cells[index].ljust(widths[index])
        if index >= _ON_THE_NIC:
            wire = wires.bus if index == _ON_THE_NIC else wires.net
            text = f"{wire if cells[index] not in {'', '-'} else '  '} {text}"
        parts.append(text)
    return _GAP.join(parts).rstrip()


# -- one below the other ----------------------------------------------------------------------------------------------
def _narrow(number: int, seat: Seat, width: int, wires: _Wires, charset: Charset) -> Iterator[Line]:
    head = Span(seat.function, Ink.VM if seat.vm else Ink.FAINT, number)
    yield _fitted(Line.of(head, f" {seat.state.lower()}"), width, charset)
    at = " at " + seat.address if seat.address else ""
    node = f", node {seat.node}" if seat.node else ""
    yield _fitted(Line.of(f"  host: {seat.vm or 'nobody'}{at}{node}"), width, charset)
    way = f" {wires.net} ".join(part for part in (_representor(seat), seat.network, seat.uplink) if part)
    yield _fitted(Line.of(f"  NIC:  {way}"), width, charset)


# -- the rest ---------------------------------------------------------------------------------------------------------
def _uplinks(uplinks: Sequence[Uplink], width: int, wires: _Wires, charset: Charset) -> Iterator[Line]:
    if uplinks:
        yield Line()
    for uplink in uplinks:
        state = wires.up if uplink.up else wires.down
        leaving = ", ".join(uplink.networks) or "nothing leaves by it"
        yield _fitted(
            Line.of("uplink ", Span(uplink.name, Ink.TITLE), f" {state} {wires.net} {leaving}"), width, charset
        )


def _notes(seats: Sequence[Seat]) -> tuple[str, ...]:
    return tuple(f"{seat.function}: {seat.note}" for seat in seats if seat.note)


def _list(title: str, sentences: Sequence[str], width: int) -> Iterator[Line]:
    if not sentences:
        return
    yield Line()
    yield Line.of(f"{title}:")
    for sentence in sentences:
        for line in textwrap.wrap(sentence, width, initial_indent="- ", subsequent_indent="  "):
            yield Line.of(line)


def _wrapped(text: str, width: int, ink: Ink) -> Iterator[Line]:
    for line in textwrap.wrap(text, width):
        yield Line.of(Span(line, ink))


def _fitted(line: Line, width: int, charset: Charset) -> Line:
    return line if len(line) <= width else line.fitted(width, charset.ellipsis)


def _fit(text: str, width: int, charset: Charset) -> str:
    return text if len(text) <= width else text[: width - len(charset.ellipsis)] + charset.ellipsis
