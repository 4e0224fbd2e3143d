"""``-o jsonpath=...``: the part of kubectl's JSONPath that people use in scripts.

Text outside braces is printed as it is, ``{"\\n"}`` too; ``{.a.b[0].c}``, ``{.items[*].metadata.name}``,
``{['key']}`` and filters ``{.a[?(@.type=="Ready")].status}``. Several values are printed with blanks between them.
An expression without braces is taken as if it stood in them.
"""

from __future__ import annotations

import json
import re
from typing import Any

from carmel.errors import CarmelError

_PART = re.compile(
    r"""\.(?P<field>[\w$/-]+|\*)
      | \[(?P<index>-?\d+)\]
      | \[(?P<all>\*)\]
      | \['(?P<quoted>[^']*)'\]
      | \[\?\(@(?P<left>(?:\.[\w/-]+)+)\s*(?P<operator>==|!=)\s*
            (?:"(?P<text>[^"]*)"|'(?P<text2>[^']*)'|(?P<bare>[\w.-]+))\)\]
    """,
    re.VERBOSE,
)
_BLOCK = re.compile(r"\{([^{}]*)\}")
_ESCAPES = {"n": "\n", "t": "\t", '"': '"', "\\": "\\"}


class BadPath(CarmelError):
    reason = "Usage"
    exit_status = 2


def render(template: str, value: Any) -> str:
    """The template with its expressions' values. Raises ``BadPath``."""
    if "{" not in template:
        template = "{" + (template if template.startswith((".", "[")) else f".{template}") + "}"
    return _BLOCK.sub(lambda match: _block(match[1].strip(), value), template)


def select(path: str, value: Any) -> list[Any]:
    """All values at a path; none where there is nothing. Raises ``BadPath``."""
    found = [value]
    position = 1 if path.startswith("$") else 0
    while position < len(path):
        match = _PART.match(path, position)
        if match is None:
            raise BadPath(f"the JSONPath {path!r} cannot be read at {path[position:][:20]!r}")
        found = [after for before in found for after in _step(match, before)]
        position = match.end()
    return found


def _block(inner: str, value: Any) -> str:
    if len(inner) >= 2 and inner[0] == inner[-1] and inner[0] in "\"'":
        return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[0]), inner[1:-1])
    return " ".join(_shown(one) for one in select(inner if inner != "." else "", value))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _step(match: re.Match[str], value: Any) -> list[Any]:
    if match["all"] or match["field"] == "*":
        return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if match["index"] is not None:
        index = int(match["index"])
        return [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []
    if match["left"]:
        return [one for one in value if _matches(match, one)] if isinstance(value, list) else []
    key = match["quoted"] if match["quoted"] is not None else match["field"]
    return [value[key]] if isinstance(value, dict) and key in value else []


def _matches(match: re.Match[str], value: Any) -> bool:
    wanted = next(one for one in (match["text"], match["text2"], match["bare"]) if one is not None)
    found = [_shown(one) for one in select(match["left"], value)]
    return (wanted in found) == (match["operator"] == "==")
