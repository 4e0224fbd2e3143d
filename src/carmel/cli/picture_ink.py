"""Lines made of coloured pieces: laid out by their plain text, painted at the very end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import click

_LETTER_COLOURS = ("green", "yellow", "magenta", "cyan", "blue", "red")


class Ink(StrEnum):
    """What a piece of text is; its colour follows from it."""

    PLAIN = "plain"
    TITLE = "title"
    FAINT = "faint"
    SHARED = "shared"
    FULL = "full"
    VM = "vm"


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of one line. ``number`` tells VMs apart by colour."""

    text: str
    ink: Ink = Ink.PLAIN
    number: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    spans: tuple[Span, ...] = ()

    @classmethod
    def of(cls, *parts: str | Span) -> Line:
        return cls(tuple(Span(part) if isinstance(part, str) else part for part in parts))

    @property
    def text(self) -> str:
        return "".join(span.text for span in self.spans)

    def __len__(self) -> int:
        return sum(len(span.text) for span in self.spans)

    def __add__(self, other: Line) -> Line:
        return Line(self.spans + other.spans)

    def fitted(self, width: int, ellipsis: str) -> Line:
        """Exactly ``width`` columns: cut with an ellipsis, or filled with blanks."""
        if len(self) <= width:
            return self + Line.of(" " * (width - len(self)))
        kept: list[Span] = []
        left = width - len(ellipsis)
        for span in self.spans:
            kept.append(Span(span.text[:left], span.ink, span.number))
            left -= len(kept[-1].text)
        return Line((*kept, Span(ellipsis)))


@dataclass(frozen=True, slots=True)
class Charset:
    """What is drawn with. ``top``, ``between`` and ``bottom`` are the two ends of a box's horizontal lines."""

    horizontal: str
    vertical: str
    top: str
    between: str
    bottom: str
    free: str
    shared: str
    reserved: str
    unknown: str
    full: str
    empty: str
    ellipsis: str


UTF8 = Charset("─", "│", "┌┐", "├┤", "└┘", "·", "▒", "#", "?", "█", "░", "…")
ASCII = Charset("-", "|", "++", "++", "++", ".", "+", "#", "?", "=", ".", "~")


def plain(lines: Iterable[Line]) -> list[str]:
    return [line.text.rstrip() for line in lines]


def coloured(lines: Iterable[Line]) -> list[str]:
    """With the escape sequences of a terminal."""
    return ["".join(_painted(span) for span in line.spans).rstrip() for line in lines]


def _painted(span: Span) -> str:
    match span.ink:
        case Ink.TITLE:
            return click.style(span.text, bold=True)
        case Ink.FAINT:
            return click.style(span.text, dim=True)
        case Ink.SHARED:
            return click.style(span.text, fg="cyan")
        case Ink.FULL:
            return click.style(span.text, fg="blue")
        case Ink.VM:
            return click.style(span.text, fg=_LETTER_COLOURS[span.number % len(_LETTER_COLOURS)], bold=True)
    return span.text
