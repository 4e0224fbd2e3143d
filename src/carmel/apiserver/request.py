"""One HTTP request: its headers and query as mappings, its body in limits."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.datastructures import Headers, QueryParams
from starlette.types import Receive, Scope

from carmel.errors import BadRequest, TimedOut, TooLarge, Unavailable, UnsupportedMediaType
from carmel.resources.admission import MAX_OBJECT_BYTES

MAX_BODY_BYTES = 2 * MAX_OBJECT_BYTES
"""An object of the largest size, with room for white space, YAML and the managed fields that it comes back with."""
_BODY_SECONDS = 30.0
_IDLE_SECONDS = 60.0


class ClientGone(Exception):
    """The client closed the connection: nobody is left to answer."""


class Request:
    """What handlers read. Bodies are read once."""

    __slots__ = ("_receive", "headers", "method", "object_name", "query", "scope")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.method: str = scope.get("method", "GET")
        self.headers = Headers(scope=scope)
        self.query = QueryParams(scope["query_string"])
        self._receive = receive
        self.object_name = ""
        """What the body says that its object is called: errors name it."""

    @property
    def raw_path(self) -> bytes:
        raw: bytes | None = self.scope.get("raw_path")
        return raw if raw is not None else self.scope["path"].encode()

    def user_agent(self) -> str:
        return self.headers.get("user-agent", "")

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, in no more memory than the sender is ahead. Raises ``Unavailable`` if it breaks off."""
        while True:
            try:
                async with asyncio.timeout(_IDLE_SECONDS):
                    message = await self._receive()
            except TimeoutError:
                raise TimedOut(
                    f"nothing came for {_IDLE_SECONDS:g} s in the middle of the body", code="BodyStalled"
                ) from None
            if message["type"] == "http.disconnect":
                raise Unavailable("the sender went away in the middle of the body", code="SenderGone")
            if message.get("body"):
                yield message["body"]
            if not message.get("more_body"):
                return

    async def body(self, limit: int = MAX_BODY_BYTES) -> bytes:
        """The whole body, decompressed. Raises ``TooLarge``, ``TimedOut``, ``BadRequest``, ``UnsupportedMediaType``."""
        encoding = self.headers.get("content-encoding", "identity").lower()
        if encoding not in {"identity", "", "gzip"}:
            raise UnsupportedMediaType(f"content encoding {encoding[:40]!r} is not spoken here", hint="send it plain")
        body = bytearray()
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                async for chunk in self.chunks():
                    body += chunk
                    if len(body) > limit:
                        raise _too_large(limit)
        except TimeoutError:
            raise TimedOut(f"the body did not come within {_BODY_SECONDS:g} s", code="BodyTooSlow") from None
        return _gunzip(bytes(body), limit) if encoding == "gzip" else bytes(body)


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the request's body is larger than {limit} bytes")


def _gunzip(data: bytes, limit: int) -> bytes:
    expander: Any = zlib.decompressobj(wbits=31)
    try:
        plain: bytes = expander.decompress(data, limit + 1)
    except zlib.error as error:
        raise BadRequest(f"the body is not gzip: {error}") from None
    if len(plain) > limit:
        raise _too_large(limit)
    if not expander.eof or expander.unused_data:
        raise BadRequest("the body is not one whole gzip member")
    return plain
