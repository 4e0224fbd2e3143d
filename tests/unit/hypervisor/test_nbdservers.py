"""Whether an NBD server answers: it greets, and a connection alone is no answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from carmel.errors import Unavailable
from carmel.hypervisor.devices import NbdServer
from carmel.hypervisor.nbdservers import Away, require_reachable


@asynccontextmanager
async def listening(serve: Callable[[asyncio.StreamWriter], None]) -> AsyncIterator[NbdServer]:
    def connected(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serve(writer)
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        yield NbdServer("127.0.0.1", server.sockets[0].getsockname()[1], 600)


async def test_one_that_greets_answers() -> None:
    async with listening(lambda writer: writer.write(b"NBDMAGICIHAVEOPT\0\3")) as server:
        await require_reachable(server, "data")


@pytest.mark.parametrize(
    ("said", "why"),
    [(b"", "it ends the connection"), (b"NBDM", "it ends the connection"), (b"SSH-2.0-x\r\n", "is no NBD server")],
)
async def test_whatever_else_does_not(said: bytes, why: str) -> None:
    async with listening(lambda writer: writer.write(said)) as server:
        with pytest.raises(Unavailable, match=why) as caught:
            await require_reachable(server, "data")
    assert caught.value.code == "NBDUnreachable"
    assert "of the disk data does not answer" in caught.value.message


async def test_nobody_is_there() -> None:
    async with listening(lambda _writer: None) as server:
        pass
    with pytest.raises(Unavailable, match="does not answer"):
        await require_reachable(server, "data")


def test_being_away_is_counted_from_the_first_time_of_asking() -> None:
    away = Away.seen(None, 1000.0)
    away = Away.seen(away, 1300.0)
    assert away == Away(1000.0, 1300.0)


def test_a_server_that_was_away_long_ago_was_back_in_between() -> None:
    """The disk was wanted again meanwhile: nobody asked."""
    assert Away.seen(Away(1000.0, 1300.0), 90_000.0) == Away(90_000.0, 90_000.0)
