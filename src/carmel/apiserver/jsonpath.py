"""The simple JSONPath of printer columns (apiextensions/v1, ``additionalPrinterColumns``): fields, an index, and a
filter by equality as in ``.status.conditions[?(@.type=="Ready")].status``."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_STEP = re.compile(
    r"\.(?P<field>[A-Za-z0-9_-]+)"
    r"|\['(?P<quoted>[^']+)'\]"
    r"|\[(?P<index>[0-9]{1,6})\]"
    r"|\[\?\(@\.(?P<key>[A-Za-z0-9_-]+)\s*==\s*[\"'](?P<value>[^\"']*)[\"']\)\]"
)

Step = Callable[[Any], Any]


def compile_path(path: str) -> Step:
    """A function from an object to the value at ``path``, ``None`` when there is none. Raises ``ValueError``."""
    steps: list[Step] = []
    position = 0
    while position < len(path):
        match = _STEP.match(path, position)
        if match is None:
            raise ValueError(f"{path!r} is not a simple JSONPath (at {path[position:]!r})")
        steps.append(_step(match))
        position = match.end()

    def find(value: Any) -> Any:
        for step in steps:
            value = step(value)
            if value is None:
                return None
        return value

    return find


def _step(match: re.Match[str]) -> Step:
    if match["index"] is not None:
        index = int(match["index"])
        return lambda value: value[index] if isinstance(value, list) and len(value) > index else None
    if match["key"] is not None:
        return _filter(match["key"], match["value"])
    field = match["field"] or match["quoted"]
    return lambda value: value.get(field) if isinstance(value, dict) else None


def _filter(key: str, wanted: str) -> Step:
    def first(value: Any) -> Any:
        if not isinstance(value, list):
            return None
        return next((one for one in value if isinstance(one, dict) and one.get(key) == wanted), None)

    return first
