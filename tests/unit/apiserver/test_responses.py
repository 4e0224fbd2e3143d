"""Large and long answers: others get their turn, and a client that does not read is cut off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from starlette.types import Message

from carmel.apiserver import responses
from carmel.apiserver.responses import Pieces, Stream
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from tests.unit.apiserver.asgi import call
from tests.unit.apiserver.conftest import Served
from tests.unit.apiserver.test_objects import TABLE, VMS


async def turns_during(served: Served, headers: dict[str, str]) -> int:
    """How often another task was run while a list was answered."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    assert (await call(served.app, "GET", VMS, headers=headers)).status == 200
    task.cancel()
    return turns


async def test_a_large_table_holds_nobody_up(served: Served) -> None:
    await fill_more(served, 500)
    # One turn for every 25 rows, whatever else there is to wait for.
    assert await turns_during(served, TABLE) >= 500 // 25


async def fill_more(served: Served, count: int) -> None:

    bodies = ({"metadata": {"name": f"more-{index}", "namespace": "default"}} for index in range(count))
    await asyncio.gather(*(served.store.create(VIRTUAL_MACHINE, body) for body in bodies))


async def test_pieces_are_bounded_and_whole() -> None:
    parts = [bytes([index % 256]) * 10_000 for index in range(200)]
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await Pieces(parts, "application/json")({"type": "http"}, receive_nothing, send)
    bodies = [message["body"] for message in sent[1:]]
    assert b"".join(bodies) == b"".join(parts)
    assert max(map(len, bodies)) < 300_000
    assert dict(sent[0]["headers"])[b"content-length"] == b"2000000"


async def receive_nothing() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_client_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "_WRITE_SECONDS", 0.05)
    released: list[str] = []
    aborted: list[bool] = []

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x"
        finally:
            released.append("source")

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    resources = AsyncExitStack()
    resources.callback(lambda: released.append("resources"))
    stream = Stream(endless(), media_type="text/plain", stopping=asyncio.Event(), resources=resources)
    scope = {"type": "http", "method": "GET", "state": {"abort": lambda: aborted.append(True)}}
    async with asyncio.timeout(10):
        await stream(scope, receive_nothing, send)
    assert aborted == [True]
    assert released == ["source", "resources"]
