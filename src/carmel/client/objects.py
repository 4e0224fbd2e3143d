"""Small readings of objects, tables and watch events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

JsonObject = dict[str, Any]
"""A resource as JSON."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table. ``priority`` above 0 is for ``-o wide``."""

    name: str
    type: str = "string"
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One object's cells, and what is told of the object itself (at least its metadata)."""

    cells: tuple[Any, ...]
    object: JsonObject

    @property
    def name(self) -> str:
        return metadata(self.object, "name")

    @property
    def namespace(self) -> str:
        return metadata(self.object, "namespace")


@dataclass(frozen=True, slots=True)
class Table:
    """What the server wants people to see of some objects (``meta.k8s.io/v1`` Table)."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    resource_version: str = ""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """ADDED, MODIFIED, DELETED or BOOKMARK, and the object (or a Table with one row, when that was asked for)."""

    type: str
    object: JsonObject


def metadata(obj: Mapping[str, Any], field: str) -> str:
    found = (obj.get("metadata") or {}).get(field)
    return found if isinstance(found, str) else ""


def dig(obj: Any, *path: str | int) -> Any:
    """The value at a path, ``None`` where something on the way is not there: statuses fill up bit by bit."""
    for part in path:
        if isinstance(part, int):
            obj = obj[part] if isinstance(obj, list) and -len(obj) <= part < len(obj) else None
        else:
            obj = obj.get(part) if isinstance(obj, dict) else None
    return obj


def condition(obj: Mapping[str, Any], type_: str) -> JsonObject:
    """The condition of that type; empty when there is none."""
    for one in dig(obj, "status", "conditions") or []:
        if isinstance(one, dict) and one.get("type") == type_:
            return one
    return {}


def table_from_json(answer: Mapping[str, Any]) -> Table:
    """Cells that are missing are ``None``: never an index error because of what a server sent."""
    columns = tuple(
        Column(str(one.get("name") or ""), str(one.get("type") or "string"), int(one.get("priority") or 0))
        for one in answer.get("columnDefinitions") or ()
    )
    rows = tuple(Row(tuple(one.get("cells") or ()), one.get("object") or {}) for one in answer.get("rows") or ())
    return Table(columns, rows, metadata(answer, "resourceVersion"))
