"""Serial consoles for any number of clients, of whom none can hold up the guest.

QEMU takes one client on the serial socket, and a client that is connected but does not read blocks the guest and
the monitor. So the hub is that client: it connects while somebody is attached, reads always, and gives each attached
client its copy. A client that falls behind by more than its buffer is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from pathlib import Path

from carmel.cancellation import end_tasks
from carmel.errors import Unavailable
from carmel.hypervisor.failures import not_running
from carmel.units import KIB

_READ_BYTES = 16 * KIB
_CLIENT_BUFFER_BYTES = 512 * KIB
_RECENT_BYTES = 16 * KIB
_WRITE_SECONDS = 10.0
_FINISH_SECONDS = 1.0


class ConsoleClient:
    """Fulfils ``machine.ConsoleStream``."""

    def __init__(self, hub: ConsoleHub, recent: bytes) -> None:
        self._hub = hub
        self._waiting: deque[bytes] = deque([recent] if recent else [])
        self._bytes = len(recent)
        self._more = asyncio.Event()
        self._more.set()
        self._closed = False

    async def read(self) -> bytes:
        while not self._waiting and not self._closed:
            self._more.clear()
            await self._more.wait()
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        return data

    async def write(self, data: bytes) -> None:
        """Raises ``Unavailable`` (``ConsoleClosed``)."""
        if self._closed:
            raise Unavailable("the console is closed", code="ConsoleClosed")
        await self._hub.write(data)

    async def close(self) -> None:
        self.end()
        await self._hub.detach(self)

    def offer(self, data: bytes) -> bool:
        """Hand over what the guest said. False: the client is too far behind, and dropped."""
        if self._bytes + len(data) > _CLIENT_BUFFER_BYTES:
            self._waiting.clear()
            self.end()
            return False
        self._waiting.append(data)
        self._bytes += len(data)
        self._more.set()
        return True

    def end(self) -> None:
        self._closed = True
        self._more.set()


class ConsoleHub:
    """The serial console of one VM."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._clients: set[ConsoleClient] = set()
        self._recent = bytearray()
        self._lock = asyncio.Lock()
        self._writer: asyncio.StreamWriter | None = None
        self._pump: asyncio.Task[None] | None = None

    async def attach(self, log: Path | None = None) -> ConsoleClient:
        """A new client, who first reads the console's recent past: the end of ``log``, or of what others see.

        Raises ``Refused`` (``MachineNotRunning``) when there is no console to connect to.
        """
        async with self._lock:
            if self._writer is None:
                self._recent = bytearray(await asyncio.to_thread(_tail, log) if log is not None else b"")
                await self._connect()
            client = ConsoleClient(self, bytes(self._recent))
            self._clients.add(client)
            return client

    async def detach(self, client: ConsoleClient) -> None:
        async with self._lock:
            self._clients.discard(client)
            if not self._clients:
                await self._disconnect()

    async def write(self, data: bytes) -> None:
        """To the guest. A guest that does not read its console makes the writer wait, and then fail."""
        writer = self._writer
        if writer is None:
            raise Unavailable("the console is closed", code="ConsoleClosed")
        try:
            async with asyncio.timeout(_WRITE_SECONDS):
                writer.write(data)
                await writer.drain()
        except (TimeoutError, OSError) as exc:
            raise Unavailable("the guest does not take console input", code="ConsoleBlocked") from exc

    async def finish(self) -> None:
        """QEMU has gone: clients get what it still said, then the end."""
        if self._pump is not None:
            await asyncio.wait([self._pump], timeout=_FINISH_SECONDS)
        await self.close()

    async def close(self) -> None:
        async with self._lock:
            for client in self._clients:
                client.end()
            self._clients.clear()
            await self._disconnect()

    async def _connect(self) -> None:
        try:
            reader, self._writer = await asyncio.open_unix_connection(str(self._socket))
        except OSError as exc:
            raise not_running(self._socket.parent.name) from exc
        self._writer.transport.set_write_buffer_limits(high=_READ_BYTES)
        self._pump = asyncio.create_task(self._read(reader))

    async def _disconnect(self) -> None:
        pump, self._pump = self._pump, None
        await end_tasks(pump)
        writer, self._writer = self._writer, None
        if writer is not None:
            # What the guest never took must not keep the connection open.
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_READ_BYTES):
                self._recent += data
                del self._recent[:-_RECENT_BYTES]
                self._clients = {client for client in self._clients if client.offer(data)}
        for client in self._clients:
            client.end()


def _tail(log: Path) -> bytes:
    with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - _RECENT_BYTES))
        return file.read(_RECENT_BYTES)
    return b""
