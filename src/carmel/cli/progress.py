"""How far something is: one line that is written anew on a terminal, a line a step elsewhere, nothing for scripts."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Self

import click

from carmel.cli.text import duration, safe

_REDRAW_SECONDS = 0.1


class Progress:
    """Told on standard error, so that standard output holds results only. A context manager.

    ``step`` with the same first part as before replaces it on a terminal; elsewhere a line is printed when the first
    part changes, and at every tenth of the way.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live = not quiet and sys.stderr.isatty()
        self._began = time.monotonic()
        self._title = ""
        self._tenth = -1
        self._drawn_at = 0.0
        self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.clear()

    def step(self, title: str, detail: str = "", percent: int | None = None) -> None:
        """``title`` names the step, ``detail`` and ``percent`` say how far it is."""
        if self._quiet:
            return
        tenth = -1 if percent is None else percent // 10
        changed = title != self._title
        if self._live:
            self._redraw(title, detail, percent, force=changed)
        elif changed or tenth > self._tenth:
            click.echo(_line(title, detail, percent), err=True)
        self._tenth = tenth if changed else max(tenth, self._tenth)
        self._title = title

    def done(self, sentence: str) -> None:
        """A step is over: this line stays."""
        if self._quiet:
            return
        self.clear()
        click.echo(safe(sentence), err=True)
        self._title = ""

    def elapsed(self) -> float:
        return time.monotonic() - self._began

    def _redraw(self, title: str, detail: str, percent: int | None, *, force: bool) -> None:
        now = time.monotonic()
        if not force and now - self._drawn_at < _REDRAW_SECONDS:
            return
        text = f"{_line(title, detail, percent)}  {duration(self.elapsed())}"
        width = shutil.get_terminal_size().columns - 1
        click.echo(f"\r\x1b[K{text[:width]}", nl=False, err=True)
        self._drawn_at = now
        self._open = True

    def clear(self) -> None:
        """Take the live line away, so that something else can be printed."""
        if self._open:
            click.echo("\r\x1b[K", nl=False, err=True)
            self._open = False


def _line(title: str, detail: str, percent: int | None) -> str:
    parts = [safe(title)]
    if percent is not None:
        parts.append(f"{percent}%")
    if detail:
        parts.append(safe(detail))
    return "  ".join(parts)
