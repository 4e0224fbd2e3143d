"""Label and field selectors, in the syntax of the Kubernetes API (``app=web,tier!=db,!old,env in (a,b)``)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from carmel.errors import BadRequest
from carmel.resources.base import JsonObject
from carmel.resources.kinds import Kind

_SET = re.compile(r"\s*(?P<key>[^\s!=,()]+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)\s*(?:,|$)")
_EQUALS = re.compile(r"\s*(?P<key>[^\s!=,()]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s=!,()]*)\s*(?:,|$)")
_EXISTS = re.compile(r"\s*(?P<op>!?)\s*(?P<key>[^\s!=,()]+)\s*(?:,|$)")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition: the value at ``key`` is (or with ``negate`` is not) among ``values``; no values: is there."""

    key: str
    values: frozenset[str] | None
    negate: bool = False

    def matches(self, value: str | None) -> bool:
        if self.values is None:
            return (value is not None) != self.negate
        return (value in self.values) != self.negate


@dataclass(frozen=True, slots=True)
class Selector:
    """All requirements must hold: on labels, and on fields."""

    labels: tuple[Requirement, ...] = ()
    fields: tuple[Requirement, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.labels or self.fields)

    def matches(self, obj: JsonObject) -> bool:
        labels: Mapping[str, str] = (obj.get("metadata") or {}).get("labels") or {}
        return all(one.matches(labels.get(one.key)) for one in self.labels) and all(
            one.matches(_field(obj, one.key)) for one in self.fields
        )


def _field(obj: JsonObject, path: str) -> str:
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "" if value is None else str(value)


def parse_selector(kind: Kind, labels: str = "", fields: str = "") -> Selector:
    """The selector of a request. Raises ``BadRequest``; a field that ``kind`` does not select by is one too."""
    parsed = Selector(labels=_requirements(labels, "labelSelector"), fields=_requirements(fields, "fieldSelector"))
    allowed = {"metadata.name", "metadata.namespace", *kind.selectable_fields}
    for one in parsed.fields:
        if one.key not in allowed or one.values is None:
            raise BadRequest(f"field label not supported: {one.key}", hint="supported: " + ", ".join(sorted(allowed)))
    return parsed


def _requirements(text: str, parameter: str) -> tuple[Requirement, ...]:
    found: list[Requirement] = []
    position = 0
    while position < len(text):
        if match := _SET.match(text, position):
            values = frozenset(value.strip() for value in match["values"].split(","))
            found.append(Requirement(match["key"], values, negate=match["op"] == "notin"))
        elif match := _EQUALS.match(text, position):
            found.append(Requirement(match["key"], frozenset({match["value"]}), negate=match["op"] == "!="))
        elif match := _EXISTS.match(text, position):
            found.append(Requirement(match["key"], None, negate=bool(match["op"])))
        else:
            raise BadRequest(f"unable to parse {parameter} {text[:80]!r} at {text[position : position + 20]!r}")
        position = match.end()
    return tuple(found)
