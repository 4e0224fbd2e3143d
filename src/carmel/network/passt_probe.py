"""Whether passt works here, found by being its guest for a moment.

Two questions. Does it start and answer (it needs a route and namespaces, which containers may refuse)? And does a
connection to a forwarded port become a whole one at once? Some versions do not acknowledge the guest's SYN-ACK
before the client has sent data: then accept() in the guest does not return, and client and server wait for each
other where the server speaks first (SSH, SMTP, MySQL). Which versions do is asked of the one at hand, not of a list.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from ipaddress import IPv4Address
from pathlib import Path

from carmel.errors import CarmelError
from carmel.network.packets import Arp, ArpOperation, Flags, Segment, parse
from carmel.run import Command, Limits, Result, Runner

DEAF = "passt does not answer here"
SPEAKS_LATE = "passt here keeps servers that speak first (such as SSH) waiting"

_START_SECONDS, _HANDSHAKE_SECONDS = 1.0, 0.5
_TRIES = 2
_MOST_FRAME = 14 + 65_535
_MAC = b"\x52\x54\x00\x00\x00\x01"
_ADDRESS, _GATEWAY = IPv4Address("10.0.2.15"), IPv4Address("10.0.2.2")
_PORT = 22
_SEQUENCE = 1_000


async def find_fault(runner: Runner, program: Path, *, user: int | None = None, group: int | None = None) -> str | None:
    """What speaks against ``program`` as a sentence without an end, or ``None``.

    Takes half a second where it does not acknowledge, and never more than 1.5 s a try.
    """
    fault: str | None = None
    for _ in range(_TRIES):
        ended, fault = await _try(runner, program, user, group)
        if not ended:
            break
        # Perhaps somebody took the port that was free a moment ago.
    return fault


async def _try(runner: Runner, program: Path, user: int | None, group: int | None) -> tuple[bool, str | None]:
    """Whether passt ended by itself, and its fault."""
    ours, its = socket.socketpair()
    with ours, its:
        port = _free_port()
        # A connection that is there already: no file to leave behind, and passt ends with us, whatever ends us.
        command = Command(
            [
                program, "--foreground", "--quiet", "--ipv4-only", "--no-map-gw", "--address", str(_ADDRESS),
                "--netmask", "24", "--gateway", str(_GATEWAY), "--tcp-ports", f"127.0.0.1/{port}:{_PORT}",
                "--udp-ports", "none", "--fd", str(its.fileno()),
            ],
            user=user,
            group=group,
            limits=Limits(seconds=_START_SECONDS + _HANDSHAKE_SECONDS + 1),
            pass_fds=(its.fileno(),),
        )  # fmt: skip
        run = asyncio.create_task(runner.run(command, check=False))
        guest = asyncio.create_task(_be_guest(ours, port))
        try:
            await asyncio.wait((run, guest), return_when=asyncio.FIRST_COMPLETED)
            return (False, guest.result()) if guest.done() else (True, _how_it_ended(run))
        finally:
            for task in (guest, run):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, CarmelError, OSError):
                    await task


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _how_it_ended(run: asyncio.Task[Result]) -> str:
    try:
        words = run.result().last_words.splitlines()
    except (CarmelError, OSError) as exc:
        words = [str(exc)]
    return f"passt does not work here: {words[-1] if words else 'it said nothing'}"


async def _be_guest(connection: socket.socket, port: int) -> str | None:
    """The fault that shows, if one does."""
    with contextlib.closing(await _Link.over(connection)) as link:
        try:
            async with asyncio.timeout(_START_SECONDS):
                gateway_mac = await link.ask_for_gateway()
        except (OSError, EOFError, ValueError, TimeoutError):
            return DEAF
        # It answers, so it listens already.
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                await link.accept(port, gateway_mac)
        except (OSError, EOFError, ValueError, TimeoutError):
            return SPEAKS_LATE
        return None


class _Link:
    """The guest's end of its cable. Each frame has its length before it, as QEMU's streams have."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, connection: socket.socket) -> _Link:
        return cls(*await asyncio.open_connection(sock=connection))

    def close(self) -> None:
        self._writer.transport.abort()

    async def ask_for_gateway(self) -> bytes:
        """Its MAC address; passt knows ours from now on."""
        self._send(Arp(ArpOperation.REQUEST, _MAC, _ADDRESS, bytes(6), _GATEWAY))
        while True:
            packet = await self._receive()
            if isinstance(packet, Arp) and packet.operation is ArpOperation.REPLY and packet.sender == _GATEWAY:
                return packet.sender_mac

    async def accept(self, port: int, gateway_mac: bytes) -> None:
        """Connect to ``port`` of this host, and be the server that it leads to. Returns when accept() would."""
        _, client = await asyncio.open_connection("127.0.0.1", port)
        try:
            syn = await self._receive_segment(Flags.SYN)
            self._send(
                Segment(
                    _MAC, gateway_mac, syn.target, syn.source, syn.target_port, syn.source_port,
                    _SEQUENCE, (syn.sequence + 1) % 2**32, Flags.SYN | Flags.ACK,
                )
            )  # fmt: skip
            while (await self._receive_segment(Flags.ACK)).acknowledgement != _SEQUENCE + 1:
                pass
        finally:
            client.transport.abort()

    async def _receive_segment(self, flags: Flags) -> Segment:
        while True:
            packet = await self._receive()
            if isinstance(packet, Segment) and packet.target_port == _PORT and packet.flags == flags:
                return packet

    def _send(self, packet: Arp | Segment) -> None:
        frame = packet.frame()
        self._writer.write(len(frame).to_bytes(4, "big") + frame)

    async def _receive(self) -> Arp | Segment | None:
        """The next packet that came, answering those who ask for our address."""
        length = int.from_bytes(await self._reader.readexactly(4), "big")
        if length > _MOST_FRAME:
            raise ValueError(f"a frame of {length} bytes")
        packet = parse(await self._reader.readexactly(length))
        if isinstance(packet, Arp) and packet.operation is ArpOperation.REQUEST and packet.target == _ADDRESS:
            self._send(Arp(ArpOperation.REPLY, _MAC, _ADDRESS, packet.sender_mac, packet.sender))
        return packet
