"""How deep JSON values go."""

from __future__ import annotations

from typing import Any


def is_deeper(value: Any, levels: int) -> bool:
    """Whether anything is left of ``value`` below so many levels of lists and objects.

    Level by level, so that no depth can exhaust the stack of the functions that recurse.
    """
    level = [value]
    for _ in range(levels):
        level = [
            child
            for one in level
            if isinstance(one, dict | list)
            for child in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return True
