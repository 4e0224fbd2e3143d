"""Lists of CPUs (or NUMA nodes) as the kernel writes them: ``0-3,8,10-11`` (Documentation/admin-guide/cputopology.rst;
the "list format" of cpuset(7))."""

from __future__ import annotations

import re
from collections.abc import Iterable

LARGEST = 4095
"""Above it a number is taken for a mistake, or an attack: no kernel is built for that many (``CONFIG_NR_CPUS``)."""
_RANGE = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?", re.ASCII)


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """Ascending, without doubles; the empty list is empty text.

    Raises ``ValueError`` with a sentence that fits behind a field's name.
    """
    numbers: set[int] = set()
    for part in filter(None, (part.strip() for part in text.strip().split(","))):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ValueError(f"{part[:40]!r} is not a CPU or a range of them: write for example 0-3,8")
        first = int(match[1])
        last = int(match[2]) if match[2] is not None else first
        if last < first:
            raise ValueError(f"{part!r} ends before it begins")
        if last > LARGEST:
            raise ValueError(f"{part!r} is beyond CPU {LARGEST}")
        numbers.update(range(first, last + 1))
    return tuple(sorted(numbers))


def format_cpu_list(numbers: Iterable[int]) -> str:
    """The shortest list: ``(0, 1, 2, 5)`` is ``0-2,5``."""
    parts: list[list[int]] = []
    for number in sorted(set(numbers)):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)
