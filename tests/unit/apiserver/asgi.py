"""Requests to an ASGI application without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson
from starlette.types import ASGIApp, Message

MASTER = {"peer_uid": 0}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Exchange:
    """One request that is being answered: what came so far, and a way to hang up."""

    task: asyncio.Task[None]
    sent: list[Message]
    arrived: asyncio.Condition
    hang_up: asyncio.Event

    async def lines(self, count: int) -> list[Any]:
        """The first ``count`` JSON lines of the body."""
        async with asyncio.timeout(10), self.arrived:
            await self.arrived.wait_for(lambda: self.body().count(b"\n") >= count)
        return [orjson.loads(line) for line in self.body().splitlines()[:count]]

    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent)

    async def end(self) -> None:
        self.hang_up.set()
        async with asyncio.timeout(10):
            await self.task


def start(
    app: ASGIApp,
    method: str,
    target: str,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
    state: Mapping[str, Any] | None = None,
) -> Exchange:
    """Send a request from root (or from whom ``state`` says) and come back at once."""
    path, _, query = target.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote_to_bytes(path).decode("utf-8", "replace"),
        "raw_path": path.encode("utf-8", "surrogateescape"),
        "query_string": query.encode("utf-8", "surrogateescape"),
        "root_path": "",
        "headers": [(key.lower().encode("latin-1"), value.encode("latin-1")) for key, value in (headers or {}).items()],
        "client": None,
        "server": None,
        "state": dict(MASTER if state is None else state),
    }
    incoming: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    arrived, hang_up = asyncio.Condition(), asyncio.Event()
    sent: list[Message] = []

    async def receive() -> Message:
        if incoming:
            return incoming.pop(0)
        await hang_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        async with arrived:
            sent.append(message)
            arrived.notify_all()

    async def run() -> None:
        await app(scope, receive, send)

    return Exchange(asyncio.create_task(run()), sent, arrived, hang_up)


async def call(
    app: ASGIApp,
    method: str,
    target: str,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
    state: Mapping[str, Any] | None = None,
) -> Answer:
    """A request and its whole answer. ``body``: bytes, or what becomes JSON."""
    raw = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
    exchange = start(app, method, target, raw, headers, state)
    async with asyncio.timeout(20):
        await exchange.task
    first = exchange.sent[0]
    answered = {key.decode(): value.decode("latin-1") for key, value in first["headers"]}
    return Answer(first["status"], answered, exchange.body())
