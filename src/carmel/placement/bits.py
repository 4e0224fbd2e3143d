"""Sets of CPUs as integers: bit ``n`` is CPU ``n``. A thousand CPUs are one operation."""

from __future__ import annotations

from collections.abc import Iterable


def mask_of(cpus: Iterable[int]) -> int:
    mask = 0
    for cpu in cpus:
        mask |= 1 << cpu
    return mask


def cpus_of(mask: int) -> tuple[int, ...]:
    """Ascending."""
    cpus = []
    while mask:
        lowest = mask & -mask
        cpus.append(lowest.bit_length() - 1)
        mask ^= lowest
    return tuple(cpus)


def lowest(mask: int) -> int:
    """The lowest CPU of a set that is not empty."""
    return (mask & -mask).bit_length() - 1
