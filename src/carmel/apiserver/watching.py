"""watch: one JSON line for each change (API concepts, "Efficient detection of changes", "Streaming lists")."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

import orjson
from starlette.types import ASGIApp

from carmel.apiserver import query, tables
from carmel.apiserver.negotiation import Shape, Wanted, wanted
from carmel.apiserver.reading import include_of, selector_of
from carmel.apiserver.request import Request
from carmel.apiserver.requestinfo import RequestInfo
from carmel.apiserver.responses import Stream
from carmel.apiserver.shared import Shared
from carmel.apiserver.status import failure
from carmel.errors import CarmelError, Expired
from carmel.resources.base import JsonObject
from carmel.resources.kinds import Kind
from carmel.store.protocol import EventType, Store, Stored, WatchEvent

_SHORTEST_SECONDS = 1800
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


@dataclass(frozen=True, slots=True)
class Start:
    """Where a watch begins, and which bookmarks its client wants."""

    since: str | None
    send_initial: bool
    bookmarks: bool
    mark_initial_end: bool


def start_of(parameters: Mapping[str, str]) -> Start:
    """Read ``resourceVersion``, ``sendInitialEvents`` and their kin. Raises ``Invalid`` for what contradicts itself.

    Without a resourceVersion (or with "0") a watch begins with what there is, but says nothing when that is told,
    unless it asked for ``sendInitialEvents``.
    """
    version = parameters.get("resourceVersion", "")
    match = parameters.get("resourceVersionMatch", "")
    bookmarks = query.flag(parameters, "allowWatchBookmarks")
    asked = parameters.get("sendInitialEvents", "")
    if not asked:
        if match:
            raise query.invalid(
                "resourceVersionMatch",
                "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )
        initial = version in {"", "0"}
        return Start(None if initial else version, initial, bookmarks, mark_initial_end=False)
    if match != "NotOlderThan":
        raise query.invalid(
            "resourceVersionMatch", "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        )
    if not query.flag(parameters, "sendInitialEvents"):
        return Start(
            None if version in {"", "0"} else version, send_initial=False, bookmarks=bookmarks, mark_initial_end=False
        )
    return Start(None, send_initial=True, bookmarks=bookmarks, mark_initial_end=bookmarks)


class Encoder:
    """Events to lines, in the shape that the watcher asked for. The first Table alone has the columns."""

    def __init__(self, kind: Kind, shape: Wanted, include: tables.Include) -> None:
        self._kind = kind
        self._shape = shape
        self._include = include
        self._header = True

    def line(self, event: WatchEvent) -> bytes:
        if event.object is None:
            shown = orjson.dumps(self._bookmark(event))
        elif self._shape.shape is Shape.OBJECT:
            shown = event.object.raw
        else:
            shown = orjson.dumps(self._shaped(event.object))
        return b'{"type":"%b","object":%b}\n' % (event.type.encode(), shown)

    def _shaped(self, stored: Stored) -> JsonObject:
        if self._shape.shape is Shape.PARTIAL:
            return tables.partial(stored.json(), self._shape)
        header, self._header = self._header, False
        version = stored.resource_version
        return tables.table(self._kind, [stored], self._shape, self._include, header=header, resourceVersion=version)

    def _bookmark(self, event: WatchEvent) -> JsonObject:
        metadata: JsonObject = {"resourceVersion": event.resource_version, "creationTimestamp": None}
        if event.initial_events_end:
            metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
        if self._shape.shape is Shape.TABLE:
            header, self._header = self._header, False
            table = tables.table(self._kind, (), self._shape, self._include, header=header)
            row = {"cells": [""] * (len(self._kind.columns) + 1), "object": self._partial(metadata)}
            return {**table, "metadata": {"resourceVersion": event.resource_version}, "rows": [row]}
        if self._shape.shape is Shape.PARTIAL:
            return self._partial(metadata)
        return {"kind": self._kind.kind, "apiVersion": self._kind.api_version, "metadata": metadata}

    def _partial(self, metadata: JsonObject) -> JsonObject:
        return {"kind": "PartialObjectMetadata", "apiVersion": self._shape.api_version, "metadata": metadata}


async def watch(store: Store, shared: Shared, info: RequestInfo, request: Request) -> ASGIApp:
    kind = info.kind
    assert kind is not None
    shape = wanted(request.headers.get("accept", ""))
    encoder = Encoder(kind, shape, include_of(request))
    selector = selector_of(kind, request)
    start = start_of(request.query)
    seconds = query.number(request.query, "timeoutSeconds") or random.randint(_SHORTEST_SECONDS, 2 * _SHORTEST_SECONDS)  # noqa: S311 - spreads re-connections
    source = store.watch(
        kind,
        info.namespace,
        since=start.since,
        selector=selector,
        send_initial=start.send_initial,
        bookmarks=start.bookmarks,
    )
    async with AsyncExitStack() as stack:
        stack.enter_context(shared.watches.place())
        try:
            lines = _lines(await stack.enter_async_context(source), encoder, start)
        except Expired as error:
            lines = _failed(error)
        return Stream(
            lines,
            media_type="application/json;stream=watch" if shape.shape is not Shape.OBJECT else "application/json",
            stopping=shared.stopping,
            resources=stack.pop_all(),
            seconds=float(min(seconds, 86400)),
        )


async def _lines(events: AsyncIterator[WatchEvent], encoder: Encoder, start: Start) -> AsyncIterator[bytes]:
    try:
        async for event in events:
            if event.initial_events_end and not start.mark_initial_end:
                continue
            if event.type is EventType.BOOKMARK and not start.bookmarks:
                continue
            yield encoder.line(event)
    except CarmelError as error:
        yield _error_line(error)


async def _failed(error: CarmelError) -> AsyncIterator[bytes]:
    """What is too old is told inside the watch, where every client looks for it."""
    yield _error_line(error)


def _error_line(error: CarmelError) -> bytes:
    return b'{"type":"ERROR","object":%b}\n' % orjson.dumps(failure(error))
