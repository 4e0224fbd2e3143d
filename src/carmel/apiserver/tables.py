"""Tables for people (``meta.k8s.io/v1`` Table): the same columns for ``kubectl get`` and ``carmel get``."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from typing import Any

import orjson

from carmel.apiserver.jsonpath import Step, compile_path
from carmel.apiserver.negotiation import Wanted
from carmel.resources.base import JsonObject
from carmel.resources.kinds import Column, Kind
from carmel.store.protocol import Stored

_NAME = Column("Name", ".metadata.name", description="Name of the object, unique in its namespace.", format="name")


class Include(StrEnum):
    """What comes with each row (``includeObject``)."""

    NONE = "None"
    METADATA = "Metadata"
    OBJECT = "Object"


def column_definitions(kind: Kind) -> list[JsonObject]:
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description or f"{kind.kind}{column.path}",
            "priority": column.priority,
        }
        for column in (_NAME, *kind.columns)
    ]


def table(
    kind: Kind, objects: Iterable[Stored], wanted: Wanted, include: Include, *, header: bool = True, **metadata: Any
) -> JsonObject:
    """A Table of ``objects``; ``metadata`` is the list's (resourceVersion, continue, ...)."""
    now = datetime.now(UTC)
    return {
        "kind": "Table",
        "apiVersion": wanted.api_version,
        "metadata": {key: value for key, value in metadata.items() if value not in {None, ""}},
        "columnDefinitions": column_definitions(kind) if header else None,
        "rows": [row(kind, stored.json(), wanted, include, now) for stored in objects],
    }


def row(kind: Kind, obj: JsonObject, wanted: Wanted, include: Include, now: datetime) -> JsonObject:
    cells = [obj["metadata"]["name"], *(_cell(column, find(obj), now) for column, find in _readers(kind))]
    shown: JsonObject = {"cells": cells}
    if include is Include.METADATA:
        shown["object"] = partial(obj, wanted)
    elif include is Include.OBJECT:
        shown["object"] = obj
    return shown


def partial(obj: JsonObject, wanted: Wanted) -> JsonObject:
    """An object's metadata as an object of its own."""
    return {"kind": "PartialObjectMetadata", "apiVersion": wanted.api_version, "metadata": obj["metadata"]}


@cache
def _readers(kind: Kind) -> tuple[tuple[Column, Step], ...]:
    return tuple((column, compile_path(column.path)) for column in kind.columns)


def _cell(column: Column, value: Any, now: datetime) -> Any:
    if value is None:
        return None
    if column.type == "date":
        return age(value, now)
    if column.type in {"integer", "number", "boolean"}:
        return value
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def age(value: object, now: datetime) -> str:
    """How long ago, in the two or three characters that people read in tables."""
    try:
        then = datetime.fromisoformat(str(value))
    except ValueError:
        return "<invalid>"
    return human_duration(int((now - then).total_seconds()))


def human_duration(seconds: int) -> str:
    """As Kubernetes writes it (``duration.HumanDuration``): finer the younger it is."""
    if seconds < -1:
        return "<invalid>"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    years = days // 365
    for below, whole, rest in (
        (seconds < 120, f"{max(seconds, 0)}s", ""),
        (minutes < 10, f"{minutes}m", _rest(seconds % 60, "s")),
        (minutes < 180, f"{minutes}m", ""),
        (hours < 8, f"{hours}h", _rest(minutes % 60, "m")),
        (hours < 48, f"{hours}h", ""),
        (days < 8, f"{days}d", _rest(hours % 24, "h")),
        (days < 2 * 365, f"{days}d", ""),
        (years < 8, f"{years}y", _rest(days % 365, "d")),
    ):
        if below:
            return whole + rest
    return f"{years}y"


def _rest(value: int, unit: str) -> str:
    return f"{value}{unit}" if value else ""
