"""The relay hands on bytes as they are, within limits."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from carmel.client.api import Client
from carmel.client.endpoint import Context, HttpsEndpoint
from carmel.errors import Refused
from carmel.smartnic.relay import Relay, RelayLimits, bind
from tests.fakes.nic import TOKEN, FakeNic, running_nic

Echo = tuple[asyncio.Server, int]


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """A server that says in capitals what it was told, when all was said."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write((await reader.read()).upper())
            writer.write_eof()
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


@contextlib.asynccontextmanager
async def relaying(port: int, limits: RelayLimits | None = None) -> AsyncIterator[Relay]:
    relay = Relay("127.0.0.1", port, limits)
    relay.start(bind("127.0.0.1", None, None))
    try:
        yield relay
    finally:
        await relay.close()


async def say(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(20):
            return await reader.read()
    finally:
        writer.transport.abort()


async def test_bytes_go_both_ways_and_one_side_may_end_first(echo: int) -> None:
    async with relaying(echo) as relay:
        whole = b"a word " * 100_000
        assert await say(relay.listens_at, whole) == whole.upper()


async def test_a_nic_that_does_not_answer_is_a_closed_connection() -> None:
    silent = socket.create_server(("127.0.0.1", 0))
    port = silent.getsockname()[1]
    silent.close()
    async with relaying(port) as relay:
        with contextlib.suppress(OSError):
            assert await say(relay.listens_at, b"hello") == b""


async def test_more_connections_than_there_may_be_are_closed(echo: int) -> None:
    async with relaying(echo, RelayLimits(connections=1)) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.listens_at)
        writer.write(b"first")
        await writer.drain()
        with contextlib.suppress(OSError):
            assert await say(relay.listens_at, b"second") == b""
        writer.write_eof()
        assert await reader.read() == b"FIRST"
        writer.transport.abort()


async def test_who_says_nothing_for_long_is_closed(echo: int) -> None:
    async with relaying(echo, RelayLimits(idle_seconds=0.05)) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.listens_at)
        async with asyncio.timeout(20):
            with contextlib.suppress(OSError):
                assert await reader.read() == b""
        writer.transport.abort()


async def test_closing_ends_what_is_open(echo: int) -> None:
    async with relaying(echo) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.listens_at)
        writer.write(b"half")
        await writer.drain()
        await relay.close()
        async with asyncio.timeout(20):
            with contextlib.suppress(OSError):
                assert await reader.read() == b""
        writer.transport.abort()


async def test_tls_ends_at_the_nic(tmp_path_factory: pytest.TempPathFactory) -> None:
    """An administrator's token, and the NIC's own certificate: through the relay as without it."""
    async with running_nic(tmp_path_factory.mktemp("nic")) as nic, relaying(nic.port) as relay:
        await asyncio.to_thread(_as_administrator, nic, relay.listens_at)


def _as_administrator(nic: FakeNic, port: int) -> None:
    endpoint = HttpsEndpoint("127.0.0.1", port, ca=nic.endpoint().ca, token=TOKEN)
    with Client(Context("nic", endpoint)) as client:
        listed = client.get_json("/apis/carmel.dev/v1alpha1/smartnics")
    assert [one["metadata"]["name"] for one in listed["items"]] == ["itself"]


def test_ports_are_kept_where_they_can_be() -> None:
    first = bind("127.0.0.1", None, None)
    port = first.getsockname()[1]
    # It is in use: another one is taken, unless this very one is asked for.
    second = bind("127.0.0.1", None, port)
    assert second.getsockname()[1] != port
    with pytest.raises(Refused) as caught:
        bind("127.0.0.1", port, None)
    assert (caught.value.code, caught.value.field) == ("PortInUse", "spec.relayPort")
    first.close()
    second.close()
    again = bind("127.0.0.1", None, port)
    assert again.getsockname()[1] == port
    again.close()
    with pytest.raises(Refused) as caught:
        bind("192.0.2.1", 4000, None)
    assert caught.value.code == "AddressNotUsable"
