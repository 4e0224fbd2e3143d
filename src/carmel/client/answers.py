"""What the server answers: an object, an error, an event of a watch."""

from __future__ import annotations

import json

from carmel.client.objects import JsonObject, WatchEvent, metadata
from carmel.client.status import error_from_status
from carmel.errors import BadRequest, CarmelError, InternalError


def parsed_object(body: bytes) -> JsonObject:
    """An answer as JSON. Raises ``InternalError`` for one that is none: something else listens there."""
    try:
        parsed = json.loads(body)
    except ValueError as exc:
        raise InternalError("the server's answer is not JSON", code="NotAnApiServer") from exc
    if not isinstance(parsed, dict):
        raise InternalError("the server's answer is not an object", code="NotAnApiServer")
    return parsed


def error_of(http_status: int, body: bytes) -> CarmelError:
    """The error of an answer, a Status or not."""
    try:
        status = json.loads(body)
    except ValueError:
        status = None
    if isinstance(status, dict):
        return error_from_status(status, http_status)
    text = body.decode("utf-8", "replace").strip().partition("\n")[0][:200]
    return error_from_status({"message": text}, http_status)


def event_of(line: bytes) -> WatchEvent:
    """A line of a watch. Raises the error that the server ended it with."""
    parsed = parsed_object(line)
    obj = parsed.get("object")
    if not isinstance(obj, dict):
        raise BadRequest("the server sent a watch event without an object", code="NotAnApiServer")
    if parsed.get("type") == "ERROR":
        code = obj.get("code")
        raise error_from_status(obj, code if isinstance(code, int) else 500)
    return WatchEvent(str(parsed.get("type")), obj)


def version_of(obj: JsonObject) -> str:
    """An object's version; of a table with one row, that of its row."""
    if version := metadata(obj, "resourceVersion"):
        return version
    rows = obj.get("rows") or [{}]
    return metadata(rows[-1].get("object") or {}, "resourceVersion")
