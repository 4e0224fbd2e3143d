"""A guest agent that answers, and guests that try to do harm."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from carmel.hypervisor import guestagent

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ANSWERS: dict[str, Any] = {
    "guest-info": {"version": "7.2.22", "supported_commands": []},
    "guest-get-host-name": {"host-name": "web\x1b[2J"},
    "guest-get-osinfo": {"pretty-name": "Debian GNU/Linux 12", "kernel-release": "6.1.0"},
    "guest-network-get-interfaces": [
        {"name": "lo", "hardware-address": "00:00:00:00:00:00", "ip-addresses": [{"ip-address": "127.0.0.1"}]},
        {
            "name": "eth0",
            "hardware-address": "52:54:00:AA:00:01",
            "ip-addresses": [{"ip-address": "10.0.2.15"}, {"ip-address": "fe80::1"}, {"ip-address": "not one"}],
        },
        "nonsense",
    ],
}


@asynccontextmanager
async def agent(socket: Path, serve: Serve) -> AsyncIterator[None]:
    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_unix_server(guarded, str(socket))
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()


async def honest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b'{"return": "old answer"}\n\xff{"return": 1}\n')
    while line := await reader.readline():
        request = json.loads(line.lstrip(b"\xff"))
        if request["execute"] == "guest-sync-delimited":
            writer.write(b"\xff")
            answer = request["arguments"]["id"]
        else:
            answer = ANSWERS[request["execute"]]
        writer.write(json.dumps({"return": answer}).encode() + b"\n")


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def garbage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    writer.write(b"\xff{]\n\xff" + b"[" * 100_000 + b"\n")
    await reader.read()


async def test_answers(tmp_path: Path) -> None:
    async with agent(tmp_path / "agent", honest):
        status = await guestagent.status(tmp_path / "agent")
        found = await guestagent.addresses(tmp_path / "agent")
    assert status is not None
    # What would move a terminal's cursor is gone.
    assert (status.host_name, status.os_name, status.kernel) == ("web[2J", "Debian GNU/Linux 12", "6.1.0")
    assert found == {"52:54:00:aa:00:01": ["10.0.2.15"]}


@pytest.mark.parametrize("serve", [silent, endless, garbage])
async def test_a_hostile_agent_is_no_agent(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guestagent, "_SECONDS", 0.2)
    async with asyncio.timeout(5), agent(tmp_path / "agent", serve):
        assert await guestagent.status(tmp_path / "agent") is None
        assert await guestagent.addresses(tmp_path / "agent") == {}


async def test_no_agent(tmp_path: Path) -> None:
    assert await guestagent.status(tmp_path / "agent") is None
