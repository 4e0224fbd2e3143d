"""A bridge in a network namespace of its own, with ports whose other ends are read and written frame by frame.

For kernels without connection tracking on bridges there is ``UntrackedTables``: it leaves out of what the kernel is
told the few statements that need it, so that each packet is judged as the first of its connection.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Self

from carmel.network.firewall.model import Address, Connection
from carmel.network.firewall.nft_rules import Field, Is, Log, SetMark, Statement
from carmel.network.firewall.nft_state import AddRule, Command
from carmel.network.firewall.nft_tables import NftTables

_CLONE_NEWNET = 0x40000000
_ETH_ALL = 3
_BROADCAST = b"\xff" * 6
_TAG = struct.Struct("!4sI")
_MAGIC = b"cmfw"
_FORCED_BUFFER = 33  # SO_RCVBUFFORCE, socket(7)


class Wire:
    """``names`` are interfaces on the bridge; the far end of each is a raw socket here."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._sockets: dict[str, socket.socket] = {}
        self._namespace = -1

    def __enter__(self) -> Self:
        _in_thread(self._make)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self._sockets.values():
            one.close()
        # The last that held the namespace: with it everything in it goes.
        os.close(self._namespace)

    @property
    def namespace(self) -> Path:
        return Path(f"/proc/{os.getpid()}/fd/{self._namespace}")

    def _make(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "unshare")
        self._namespace = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        lines = ["link add br0 type bridge mcast_snooping 0", "link set br0 up"]
        for name in self._names:
            lines += [f"link add {name} type veth peer name far-{name}", f"link set {name} master br0 up"]
            lines += [f"link set far-{name} up"]
        # No addresses of the kernel's own, and so no frames of its own either.
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
        subprocess.run(["ip", "-batch", "-"], input="\n".join(lines).encode(), check=True)
        for name in self._names:
            self._sockets[name] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_ALL))
            self._sockets[name].setsockopt(socket.SOL_SOCKET, _FORCED_BUFFER, 8 << 20)
            self._sockets[name].bind((f"far-{name}", 0))
            self._sockets[name].settimeout(20)

    def send(self, name: str, frame: bytes) -> None:
        """As if the VM behind ``name`` (or what is behind an uplink) had sent it."""
        self._sockets[name].send(frame)

    def received(self, name: str, until: bytes) -> set[int]:
        """The tags of what arrived behind ``name`` before the frame ``until``."""
        tags = set()
        while (frame := self._sockets[name].recv(2048)) != until:
            at = frame.find(_MAGIC)
            if at >= 0:
                tags.add(_TAG.unpack_from(frame, at)[1])
        return tags


def _in_thread(work: Callable[[], None]) -> None:
    """In a thread of its own, which ends: what it does to its namespace is no other thread's business."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again where it was asked for
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def marker(number: int) -> bytes:
    """An ARP frame, which every port that is known lets through."""
    return _BROADCAST + b"\x52\x54\x00\x00\x00\x01\x08\x06" + struct.pack("!4sI", b"mark", number).ljust(46, b"\0")


def first_packet(connection: Connection, vm: Address, *, to_vm: bool, tag: int) -> bytes:
    """The frame that begins ``connection``, which carries ``tag``."""
    source, target = (connection.peer, vm) if to_vm else (vm, connection.peer)
    body = _transport(connection) + _TAG.pack(_MAGIC, tag)
    if isinstance(source, IPv4Address):
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, connection.protocol, 0, source.packed,
                           target.packed)  # fmt: skip
        head = head[:10] + struct.pack("!H", _checksum(head)) + head[12:]
        kind = b"\x08\x00"
    else:
        head = struct.pack("!IHBB16s16s", 6 << 28, len(body), connection.protocol, 64, source.packed, target.packed)
        kind = b"\x86\xdd"
    return _BROADCAST + b"\x52\x54\x00\x00\x00\x02" + kind + head + body


def _transport(connection: Connection) -> bytes:
    port = connection.port or 0
    match connection.protocol:
        case 6:
            return struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 0x50, 2, 1024, 0, 0)
        case 17:
            return struct.pack("!HHHH", 40000, port, 16, 0)
        case 132:
            return struct.pack("!HHII", 40000, port, 0, 0)
        case 1:
            return struct.pack("!BBHHH", 8, 0, 0, 1, 1)
        case 58:
            return struct.pack("!BBHHH", 128, 0, 0, 1, 1)
    return b"\0" * 8


def _checksum(head: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(head) // 2}H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class UntrackedTables(NftTables):
    """Has rules without the statements that name a connection."""

    async def apply(self, commands: Sequence[Command]) -> None:
        await super().apply([one for one in map(_plain, commands) if one is not None])


def _plain(command: Command) -> Command | None:
    if not isinstance(command, AddRule):
        return command
    statements = command.rule.statements
    plain = tuple(one for one in statements if not _is_about_a_connection(one))
    if len(plain) == len(statements):
        return command
    # To let pass by a mark, and to ask for the direction, means nothing here; to set a mark and to log does.
    means = any(isinstance(one, SetMark | Log) for one in statements)
    return replace(command, rule=replace(command.rule, statements=plain)) if means else None


def _is_about_a_connection(statement: Statement) -> bool:
    if isinstance(statement, Is):
        return statement.part.source in {Field.STATE, Field.DIRECTION, Field.MARK}
    return isinstance(statement, SetMark)
