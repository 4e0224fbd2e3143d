"""Subresources that carry bytes: a VM's console and log, an image's upload and download."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from contextlib import AsyncExitStack

import orjson
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from carmel.apiserver import query
from carmel.apiserver.request import Request
from carmel.apiserver.requestinfo import RequestInfo
from carmel.apiserver.responses import Stream
from carmel.apiserver.shared import Shared
from carmel.apiserver.status import JSON
from carmel.apiserver.streams import ConsoleStream, LogTail, Streams
from carmel.errors import BadRequest, CarmelError
from carmel.resources.base import JsonObject
from carmel.store.protocol import Store

SUBPROTOCOL = "v1.console.carmel.dev"
_LOG = logging.getLogger(__name__)
_NORMAL, _GOING_AWAY, _INTERNAL, _TRY_AGAIN = 1000, 1001, 1011, 1013
"""Close codes of RFC 6455 section 7.4 and the registry that it founds."""
_MAX_REASON_BYTES = 120
_MAX_UPLOAD_BYTES = 64 * 2**40


async def read_log(streams: Streams, shared: Shared, info: RequestInfo, request: Request) -> ASGIApp:
    """GET ``/log``: ``tailLines``, ``tailBytes``, ``follow``."""
    tail = LogTail(
        lines=query.number(request.query, "tailLines"),
        bytes=query.number(request.query, "tailBytes"),
        follow=query.flag(request.query, "follow"),
    )
    async with AsyncExitStack() as stack:
        stack.enter_context(shared.streams.place())
        chunks = await streams.read_log(info.namespace or "", info.name, tail)
        return Stream(
            chunks,
            media_type="application/octet-stream",
            stopping=shared.stopping,
            resources=stack.pop_all(),
        )


async def receive_upload(
    streams: Streams, shared: Shared, store: Store, info: RequestInfo, request: Request
) -> Response:
    """PUT ``/upload``: the body goes to the controllers as it comes. Answers the Image as it is then."""
    assert info.kind is not None
    if "content-range" in request.headers:
        raise BadRequest("an upload is sent whole: Content-Range is not taken", code="RangeNotTaken")
    total = request.headers.get("content-length")
    total_bytes = int(total) if total is not None and total.isascii() and total.isdigit() else None
    if total_bytes is not None and total_bytes > _MAX_UPLOAD_BYTES:
        raise BadRequest(f"{total_bytes} bytes are more than any image has")
    with shared.streams.place():
        await streams.receive_upload(info.namespace or "", info.name, request.chunks(), total_bytes)
    stored = await store.get(info.kind, info.namespace, info.name)
    return Response(stored.raw, media_type=JSON)


async def send_image(streams: Streams, shared: Shared, info: RequestInfo) -> ASGIApp:
    """GET ``/download``: the disk as raw bytes, ready to be written to a drive. ``Content-Length`` is its size."""
    async with AsyncExitStack() as stack:
        stack.enter_context(shared.streams.place())
        chunks, size = await streams.read_image(info.namespace or "", info.name)
        return Stream(
            chunks,
            media_type="application/octet-stream",
            stopping=shared.stopping,
            resources=stack.pop_all(),
            size=size,
        )


async def refuse(send: Send, status: JsonObject) -> None:
    """Answer a WebSocket's handshake by a Status (ASGI extension "WebSocket Denial Response")."""
    headers = [(b"content-type", JSON.encode())]
    await send({"type": "websocket.http.response.start", "status": status["code"], "headers": headers})
    await send({"type": "websocket.http.response.body", "body": orjson.dumps(status)})


async def console(
    streams: Streams, shared: Shared, info: RequestInfo, scope: Scope, receive: Receive, send: Send
) -> None:
    """Pump bytes between a WebSocket and a VM's console until one side ends, or the server stops.

    Raises ``CarmelError`` before the handshake is answered, nothing afterwards.
    """
    with shared.streams.place():
        stream = await streams.open_console(info.namespace or "", info.name)
        try:
            offered = scope.get("subprotocols") or []
            chosen = SUBPROTOCOL if SUBPROTOCOL in offered else None
            await send({"type": "websocket.accept", "subprotocol": chosen})
            code, reason = await _pump(stream, shared.stopping, receive, send)
            with contextlib.suppress(OSError, RuntimeError):  # the client went first
                await send({"type": "websocket.close", "code": code, "reason": reason})
        finally:
            await stream.close()


async def _pump(stream: ConsoleStream, stopping: asyncio.Event, receive: Receive, send: Send) -> tuple[int, str]:
    outward = asyncio.create_task(_outward(stream, send))
    inward = asyncio.create_task(_inward(stream, receive))
    stop = asyncio.create_task(stopping.wait())
    tasks = {outward, inward, stop}
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if stop in done:
        return _GOING_AWAY, "the host's daemon stops; open the console again in a moment"
    return _ending((outward if outward in done else inward).exception())


def _ending(error: BaseException | None) -> tuple[int, str]:
    if error is None or isinstance(error, OSError):
        return _NORMAL, ""
    if isinstance(error, CarmelError):
        return _TRY_AGAIN, error.message.encode()[:_MAX_REASON_BYTES].decode("utf-8", "ignore")
    _LOG.error("a console broke", exc_info=error)
    return _INTERNAL, "internal error"


async def _outward(stream: ConsoleStream, send: Send) -> None:
    while data := await stream.read():
        await send({"type": "websocket.send", "bytes": data})


async def _inward(stream: ConsoleStream, receive: Receive) -> None:
    while (message := await receive())["type"] != "websocket.disconnect":
        data = message.get("bytes") or (message.get("text") or "").encode("utf-8", "surrogatepass")
        if data:
            await stream.write(data)
