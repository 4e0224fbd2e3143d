"""Text for people: columns, durations, and nothing that a terminal would take for a command."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from carmel.errors import CarmelError

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")
_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


class BadDuration(CarmelError):
    reason = "Usage"
    exit_status = 2


def safe(value: object) -> str:
    """A value on one line without control characters: what a guest or a peer said may hold escape sequences."""
    return _CONTROL.sub(lambda match: "" if match[0] == "\r" else " " if match[0] in "\n\t" else "?", str(value))


def cell(value: object) -> str:
    """One cell of a table. Nothing is shown as kubectl shows it."""
    if value is None or value == "":
        return "<none>"
    if isinstance(value, bool):
        return str(value).lower()
    return safe(value)


def columns(rows: Sequence[Sequence[str]], widths: list[int] | None = None) -> Iterator[str]:
    """Lines with their columns under each other, three blanks apart. ``widths`` are minima, and grow with the rows."""
    widest = [] if widths is None else widths
    for row in rows:
        widest += [0] * (len(row) - len(widest))
        for index, text in enumerate(row):
            widest[index] = max(widest[index], len(text))
    for row in rows:
        yield "   ".join(text.ljust(widest[index]) for index, text in enumerate(row)).rstrip()


def listed(title: str, sentences: Sequence[str], width: int) -> Iterator[str]:
    """An empty line, the title, and each sentence behind a dash, wrapped; nothing at all where there are none."""
    if sentences:
        yield ""
        yield f"{title}:"
    for sentence in sentences:
        yield from textwrap.wrap(safe(sentence), max(20, width), initial_indent="- ", subsequent_indent="  ")


def duration(seconds: float) -> str:
    """``45s``, ``3m20s``, ``5h12m``, ``12d``: two units at most, as kubectl writes ages."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for unit, length in _UNITS:
        count, left = divmod(left, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count}{unit}")
        elif parts:
            break
    return "".join(parts[:1] if parts[0].endswith("d") and int(parts[0][:-1]) >= 8 else parts[:2])


def parse_duration(text: str) -> float:
    """Seconds in ``90``, ``90s``, ``5m``, ``1h30m``. Raises ``BadDuration``."""
    match = _DURATION.fullmatch(text)
    if not text or match is None or not any(match.groups()):
        raise BadDuration(f"{safe(text)[:40]!r} is not a time: write for example 90s or 5m")
    days, hours, minutes, seconds = (float(group or 0) for group in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60 + seconds


def age(timestamp: str) -> str:
    """How long ago an RFC 3339 time was."""
    try:
        then = datetime.fromisoformat(timestamp)
    except ValueError:
        return "<unknown>"
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return duration((datetime.now(UTC) - then).total_seconds())
