"""Answers that are larger or longer than a moment: lists in pieces, and streams that end when the client or we do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, aclosing

from starlette.types import Receive, Scope, Send

_LOG = logging.getLogger(__name__)
_PIECE_BYTES = 256 * 1024
_WRITE_SECONDS = 30.0


class Pieces:
    """A whole body, known beforehand, sent in pieces: large lists must not hold up whoever waits behind them.

    Encrypting 16 MB at once takes a Raspberry Pi a quarter of a second; between pieces others get their turn.
    """

    def __init__(self, parts: Sequence[bytes], media_type: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._parts = parts
        self._headers = [
            (b"content-type", media_type.encode("latin-1")),
            (b"content-length", str(sum(map(len, parts))).encode()),
            *headers,
        ]

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        piece: list[bytes] = []
        size = 0
        for part in self._parts:
            piece.append(part)
            size += len(part)
            if size >= _PIECE_BYTES:
                await _send_in_time(send, b"".join(piece))
                await asyncio.sleep(0)
                piece, size = [], 0
        await send({"type": "http.response.body", "body": b"".join(piece)})


class Stream:
    """Chunks as they come, until the source ends, ``seconds`` are over, the client goes, or ``stopping`` is set.

    ``resources`` are released at the end, whatever way it comes. A client that does not read for half a minute is cut
    off. An error of the source after the first byte can only be shown by breaking off; with ``size``, the number of
    bytes that the client is promised, any end before the last of them is one.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes],
        *,
        media_type: str,
        stopping: asyncio.Event,
        resources: AsyncExitStack,
        seconds: float | None = None,
        size: int | None = None,
    ) -> None:
        self._size = size
        self._chunks = chunks
        self._media_type = media_type
        self._stopping = stopping
        self._resources = resources
        self._seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._resources:
            headers = [(b"content-type", self._media_type.encode("latin-1"))]
            if self._size is not None:
                headers.append((b"content-length", str(self._size).encode()))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body"})
                return
            pump = asyncio.create_task(self._pump(send))
            gone = asyncio.create_task(_disconnected(receive))
            stop = asyncio.create_task(self._stopping.wait())
            tasks = {pump, gone, stop}
            try:
                await asyncio.wait(tasks, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
                client_left = gone.done()
                cut_off = self._size is not None and not pump.done()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            if not pump.cancelled() and (error := pump.exception()) is not None:
                _LOG.info("a stream to a client broke off: %s", error)
                abort(scope)
            elif cut_off:
                abort(scope)
            elif not client_left:
                await _send_in_time(send, b"", more=False)

    async def _pump(self, send: Send) -> None:
        async with aclosing(self._chunks) as chunks:  # type: ignore[type-var]  # every source is a generator
            async for chunk in chunks:
                await _send_in_time(send, chunk)


async def _send_in_time(send: Send, body: bytes, *, more: bool = True) -> None:
    async with asyncio.timeout(_WRITE_SECONDS):
        await send({"type": "http.response.body", "body": body, "more_body": more})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def abort(scope: Scope) -> None:
    """Close the connection without the end of the body, so that the client knows that something is missing."""
    close_now = scope.get("state", {}).get("abort")
    if close_now is not None:
        close_now()
