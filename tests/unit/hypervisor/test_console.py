"""The console's hub: many clients, one guest, and nobody waits for a client that does not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from carmel.errors import Refused, Unavailable
from carmel.hypervisor.console import ConsoleHub


class Guest:
    """The other end of the serial socket."""

    def __init__(self) -> None:
        self.connections: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()

    async def connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.wait_for(self.connections.get(), 5)


@pytest.fixture
async def guest(tmp_path: Path) -> AsyncIterator[Guest]:
    made = Guest()
    server = await asyncio.start_unix_server(lambda r, w: made.connections.put_nowait((r, w)), str(tmp_path / "serial"))
    yield made
    server.close()
    await server.wait_closed()


async def test_everybody_sees_the_same_and_newcomers_the_recent_past(guest: Guest, tmp_path: Path) -> None:
    log = tmp_path / "serial.log"
    log.write_bytes(b"before ")
    hub = ConsoleHub(tmp_path / "serial")
    first = await hub.attach(log)
    _reader, writer = await guest.connected()
    assert await first.read() == b"before "
    writer.write(b"now")
    assert await first.read() == b"now"
    second = await hub.attach(log)
    assert await second.read() == b"before now"
    await hub.close()
    assert await first.read() == b""
    writer.close()


async def test_input_reaches_the_guest_and_the_socket_is_left_with_the_last_client(
    guest: Guest, tmp_path: Path
) -> None:
    hub = ConsoleHub(tmp_path / "serial")
    client = await hub.attach()
    reader, writer = await guest.connected()
    await client.write(b"ls\n")
    assert await reader.readline() == b"ls\n"
    await client.close()
    assert await asyncio.wait_for(reader.read(), 5) == b""
    with pytest.raises(Unavailable):
        await client.write(b"more")
    writer.close()


async def test_a_client_that_never_reads_is_dropped_and_the_guest_goes_on(guest: Guest, tmp_path: Path) -> None:
    hub = ConsoleHub(tmp_path / "serial")
    lazy, keen = await hub.attach(), await hub.attach()
    _reader, writer = await guest.connected()
    sent, got = 8 * 1024 * 1024, 0

    async def talk() -> None:
        for _ in range(sent // 65536):
            writer.write(b"x" * 65536)
            await writer.drain()

    talking = asyncio.create_task(talk())
    async with asyncio.timeout(20):
        while got < sent:
            got += len(await keen.read())
        await talking
        assert await lazy.read() == b""
    await hub.close()
    writer.close()


async def test_clients_see_the_end_of_qemu(guest: Guest, tmp_path: Path) -> None:
    hub = ConsoleHub(tmp_path / "serial")
    client = await hub.attach()
    _reader, writer = await guest.connected()
    writer.write(b"last")
    writer.close()
    seen = b""
    async with asyncio.timeout(5):
        while data := await client.read():
            seen += data
    assert seen == b"last"
    await hub.close()


async def test_no_console_without_a_vm(tmp_path: Path) -> None:
    with pytest.raises(Refused) as caught:
        await ConsoleHub(tmp_path / "serial").attach()
    assert caught.value.code == "MachineNotRunning"
