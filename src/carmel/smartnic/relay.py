"""A TCP port of the host whose bytes go to the NIC's API as they are.

It has no authentication of its own and needs none: TLS ends at the NIC, which knows its administrators by their tokens.
Whoever reaches the port reaches what the NIC shows to anybody, and the host can read or change nothing of it. So that
nobody can fill up the host, connections are limited in number and in how long they may say nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_address

from carmel.client.connections import keep_alive
from carmel.errors import Refused

_log = logging.getLogger(__name__)

PREFERRED_PORTS = range(17460, 17560)
"""Below the ranges from which systems take ports for outgoing connections (Linux 32768, macOS 49152)."""
_CHUNK_BYTES = 64 * 1024
_PAUSE_SECONDS = 1.0
"""After the kernel had no descriptor for a connection."""


@dataclass(frozen=True, slots=True)
class RelayLimits:
    """``idle_seconds`` is more than the longest watch lasts (an hour), in which nothing need be said."""

    connections: int = 64
    connect_seconds: float = 5.0
    idle_seconds: float = 7200.0


class Relay:
    """``start`` it once; ``close`` ends all its connections."""

    def __init__(self, host: str, port: int, limits: RelayLimits | None = None) -> None:
        self.host = host
        self.port = port
        """Where its bytes go."""
        self.listens_at = 0
        self._limits = limits or RelayLimits()
        self._listener: socket.socket | None = None
        self._listening: asyncio.Task[None] | None = None
        self._connections: set[asyncio.Task[None]] = set()

    def start(self, listener: socket.socket) -> None:
        """``listener`` is bound, by ``bind``, and is the relay's from here on."""
        self.listens_at = listener.getsockname()[1]
        self._listener = listener
        self._listening = asyncio.create_task(self._listen(listener), name=f"relay to {self.host}")

    async def close(self) -> None:
        if self._listening is None or self._listener is None:
            return
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        self._listener.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _listen(self, listener: socket.socket) -> None:
        """Not asyncio's server: that leaves a connection open which comes while it is closed."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError as error:
                _log.warning("the relay to %s takes no connections at the moment: %s", self.host, error)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            if len(self._connections) >= self._limits.connections:
                _log.warning("the relay to %s has as many connections as it may have: one is refused", self.host)
                connection.close()
                continue
            task = asyncio.create_task(self._serve(connection), name=f"relay to {self.host}")
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)

    async def _serve(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=connection, limit=_CHUNK_BYTES)
        try:
            async with asyncio.timeout(self._limits.connect_seconds):
                there, away = await asyncio.open_connection(self.host, self.port, limit=_CHUNK_BYTES)
        except (OSError, TimeoutError):
            # Who connected sees that it is closed; why is told in the SmartNIC's status.
            return
        else:
            try:
                for each in (writer, away):
                    keep_alive(each.get_extra_info("socket"))
                await self._pump_both(reader, writer, there, away)
            finally:
                away.transport.abort()
        finally:
            writer.transport.abort()

    async def _pump_both(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there: asyncio.StreamReader,
        away: asyncio.StreamWriter,
    ) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(self._limits.idle_seconds) as idle:
                await asyncio.gather(self._pump(reader, away, idle), self._pump(there, writer, idle))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle: asyncio.Timeout) -> None:
        """Until the one side has said all; the other may go on."""
        loop = asyncio.get_running_loop()
        while chunk := await reader.read(_CHUNK_BYTES):
            idle.reschedule(loop.time() + self._limits.idle_seconds)
            writer.write(chunk)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()


def bind(address: str, wanted: int | None, before: int | None) -> socket.socket:
    """A listener on ``wanted``, else on the port that it was ``before``, else on a free one.

    Raises ``Refused`` (``PortInUse``, ``AddressNotUsable``).
    """
    if wanted is not None:
        return _bound(address, (wanted,))
    return _bound(address, (*([before] if before else []), *PREFERRED_PORTS, 0))


def _bound(address: str, ports: Iterable[int]) -> socket.socket:
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    refused: OSError | None = None
    port = 0
    for port in ports:
        listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
            listener.listen(64)
        except OSError as error:
            listener.close()
            refused = error
            if error.errno == errno.EADDRINUSE:
                continue
            break
        listener.setblocking(False)
        return listener
    if refused is not None and refused.errno == errno.EADDRINUSE:
        raise Refused(
            f"port {port} on {address} is in use by another program",
            code="PortInUse",
            field="spec.relayPort",
            hint=f"choose another, or leave spec.relayPort out (ss -ltnp 'sport = :{port}' says who has it)",
        )
    said = refused.strerror if refused is not None else "there is none"
    raise Refused(f"port {port} on {address} cannot be used: {said}", code="AddressNotUsable", field="spec.relayPort")
