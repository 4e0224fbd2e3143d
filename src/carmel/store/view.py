"""What a write sees and what it comes to: values that the store's thread makes durable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import orjson

from carmel.errors import BadRequest, NotFound
from carmel.resources.base import JsonObject
from carmel.resources.kinds import Kind
from carmel.store.memory import Change, Key, Memory
from carmel.store.protocol import EventType, Stored


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the caller is answered, and the change that makes it true (``None``: there is nothing to change)."""

    answer: Stored
    change: Change | None = None


class View:
    """What is stored, as the writes of one transaction see it: with those before them."""

    def __init__(self, memory: Memory, now: datetime) -> None:
        self.now = now
        self.changes: list[Change] = []
        self._memory = memory
        self._revision = memory.revision
        self._overlay: dict[tuple[Kind, Key], Stored | None] = {}

    def find(self, kind: Kind, namespace: str | None, name: str) -> Stored | None:
        key = namespace or "", name
        if (kind, key) in self._overlay:
            return self._overlay[kind, key]
        return self._memory.tables[kind].objects.get(key)

    def next_revision(self) -> int:
        return self._revision + 1

    def add(self, change: Change) -> None:
        self._revision = change.revision
        self.changes.append(change)
        gone = change.type is EventType.DELETED
        self._overlay[change.after.kind, change.key] = None if gone else change.after


Write = Callable[[View], Outcome]


def dump(body: JsonObject) -> bytes:
    """The one form in which an object is stored: equal objects have equal bytes."""
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS)


def copied(body: JsonObject) -> JsonObject:
    """A copy of what a caller gave. Raises ``BadRequest`` for what is no JSON object."""
    if not isinstance(body, dict):
        raise BadRequest("the body must be a JSON object")
    try:
        copy: JsonObject = orjson.loads(orjson.dumps(body))
    except (TypeError, ValueError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    return copy


def not_found(kind: Kind, name: str) -> NotFound:
    return NotFound(f'{kind.resource} "{name}" not found')
