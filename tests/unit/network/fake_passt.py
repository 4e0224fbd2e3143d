"""Behaves as passt does towards one guest and one client of a forwarded port, with the faults that are asked for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from carmel.network.packets import Arp, ArpOperation, Flags, Segment, parse
from carmel.run import Command, Result

MAC = b"\x02\xfc\x00\x00\x00\x01"
CLIENT_PORT, SEQUENCE = 40_000, 2**32 - 1


class Manner(Enum):
    WORKS = auto()
    LATE = auto()
    """Acknowledges the guest's SYN-ACK only when the client has sent something."""
    WRONG = auto()
    """Acknowledges what was not sent."""
    DEAF = auto()
    GARBAGE = auto()
    ENDS = auto()


@dataclass
class FakePasst:
    """A ``Runner`` whose starts of passt have these manners one after another, the last one ever again."""

    manners: list[Manner]
    starts: int = 0
    running: int = 0
    commands: list[Command] = field(default_factory=list)

    async def run(
        self, command: Command, *, check: bool = True, on_line: Callable[[str], None] | None = None
    ) -> Result:
        manner = self.manners[min(self.starts, len(self.manners) - 1)]
        self.starts += 1
        self.commands.append(command)
        if manner is Manner.ENDS:
            return Result(1, b"", b"Something\nNo routable interface for IPv4\n")
        self.running += 1
        try:
            await _serve(manner, _value(command, "--fd"), _value(command, "--tcp-ports"))
            await asyncio.Event().wait()
        finally:
            self.running -= 1
        raise AssertionError("unreachable")


def _value(command: Command, option: str) -> str:
    return str(command.argv[list(command.argv).index(option) + 1])


async def _serve(manner: Manner, descriptor: str, rule: str) -> None:
    address, _, ports = rule.partition("/")
    host_port, _, guest_port = ports.partition(":")
    server = socket.create_server((address, int(host_port)))
    server.setblocking(False)
    connection = socket.socket(fileno=os.dup(int(descriptor)))
    reader, writer = await asyncio.open_connection(sock=connection)

    async def receive() -> Arp | Segment | None:
        return parse(await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big")))

    def send(frame: bytes) -> None:
        writer.write(len(frame).to_bytes(4, "big") + frame)

    with contextlib.ExitStack() as ending:
        ending.callback(server.close)
        ending.callback(writer.transport.abort)
        asked = await receive()
        assert isinstance(asked, Arp)
        if manner is Manner.DEAF:
            await asyncio.Event().wait()
        if manner is Manner.GARBAGE:
            writer.write(b"\xff" * 100)
            await asyncio.Event().wait()
        send(bytes(3))
        send(Arp(ArpOperation.REPLY, MAC, asked.target, asked.sender_mac, asked.sender).frame())
        client, _ = await asyncio.get_running_loop().sock_accept(server)
        ending.callback(client.close)
        # Newer ones ask whether the guest is there before they send anything to it.
        send(Arp(ArpOperation.REQUEST, MAC, asked.target, bytes(6), asked.sender).frame())
        guest = await receive()
        assert isinstance(guest, Arp)
        assert (guest.operation, guest.sender, guest.target_mac) == (ArpOperation.REPLY, asked.sender, MAC)

        def segment(sequence: int, acknowledgement: int, flags: Flags) -> bytes:
            ways = (MAC, guest.sender_mac, asked.target, asked.sender)
            return Segment(*ways, CLIENT_PORT, int(guest_port), sequence, acknowledgement, flags).frame()

        send(segment(SEQUENCE, 0, Flags.SYN))
        answer = await receive()
        assert isinstance(answer, Segment)
        assert answer.flags == Flags.SYN | Flags.ACK
        assert answer.acknowledgement == 0  # one more than 2**32 - 1
        assert (answer.source, answer.source_port, answer.target_port) == (asked.sender, int(guest_port), CLIENT_PORT)
        if manner is Manner.LATE:
            await asyncio.get_running_loop().sock_recv(client, 1)
        ahead = 2 if manner is Manner.WRONG else 1
        send(segment(0, answer.sequence + ahead, Flags.ACK))
        await asyncio.Event().wait()
