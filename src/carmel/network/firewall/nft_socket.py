"""The socket to nftables (NETLINK_NETFILTER), in the network namespace that the firewall is for.

It stays open. A program that is started for each change, as nft(8) is, waits at its end until all processors have let
go of what the change removed, which takes longer than the change.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from carmel.errors import CarmelError, Refused, Unavailable
from carmel.network.netns import enter

T = TypeVar("T")

_NETFILTER = 12
_NETLINK_LEVEL, _ADD_MEMBERSHIP, _DROP_MEMBERSHIP, _CAPPED_ACK, _EXTENDED_ACK = 270, 1, 2, 10, 11
_FORCED_SEND_BUFFER, _FORCED_RECEIVE_BUFFER = 32, 33
"""SO_SNDBUFFORCE and SO_RCVBUFFORCE (socket(7)): beyond what others may have."""
_SEND_BYTES, _RECEIVE_BYTES = 64 << 20, 4 << 20
_READ_BYTES = 1 << 18


class NftSocket:
    """Requests in, replies out. ``namespace`` is a network namespace's file; this process' own if it is absent."""

    def __init__(self, namespace: Path | None = None) -> None:
        self._namespace = namespace
        self._thread = ThreadPoolExecutor(1, "nftables")
        self._socket: socket.socket | None = None

    async def exchange(self, request: bytes) -> bytes:
        """All that the kernel answers. Raises ``Refused`` where it has no nftables, ``Unavailable``."""
        return await self._do(lambda: _exchanged(self._opened(), request))

    async def number(self) -> int:
        """What changes made by this socket are told of as coming from."""
        return await self._do(lambda: int(self._opened().getsockname()[0]))

    async def listener(self, group: int) -> socket.socket:
        """Another one, which gets what the kernel tells ``group``."""

        def opened() -> socket.socket:
            self._opened()  # it is what moves this thread into the namespace
            made = _made()
            made.setsockopt(socket.SOL_SOCKET, _FORCED_RECEIVE_BUFFER, _RECEIVE_BYTES)
            join(made, group)
            return made

        return await self._do(opened)

    def close(self) -> None:
        """Waits for an exchange that goes on, which is short."""
        self._thread.shutdown(wait=True)
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def _do(self, work: Callable[[], T]) -> T:
        """In a thread of its own: the namespace is that thread's, and the event loop never waits for the kernel."""

        def translated() -> T:
            try:
                return work()
            except OSError as exc:
                raise refusal(exc.errno or 0, "to speak to nftables") from exc

        return await asyncio.get_running_loop().run_in_executor(self._thread, translated)

    def _opened(self) -> socket.socket:
        if self._socket is None:
            if self._namespace is not None:
                enter(self._namespace)
            self._socket = _made()
            self._socket.setsockopt(socket.SOL_SOCKET, _FORCED_SEND_BUFFER, _SEND_BYTES)
        return self._socket


def join(listener: socket.socket, group: int) -> None:
    listener.setsockopt(_NETLINK_LEVEL, _ADD_MEMBERSHIP, group)


def leave(listener: socket.socket, group: int) -> None:
    listener.setsockopt(_NETLINK_LEVEL, _DROP_MEMBERSHIP, group)


def received(listener: socket.socket) -> bytes:
    """What is there now. Raises ``OSError`` with ENOBUFS if something was lost."""
    found = bytearray()
    with contextlib.suppress(BlockingIOError):
        while True:
            found += listener.recv(_READ_BYTES)
    return bytes(found)


def refusal(number: int, what: str, said: str = "") -> CarmelError:
    """In words what the kernel says by an error number (errno(3)), and ``said`` beside it."""
    if number in (errno.EPERM, errno.EACCES):
        return Refused("only root may set the firewall's rules", code="NotPermitted", hint="run carmeld as root")
    if number == errno.EPROTO:
        return Refused(
            "this kernel cannot track connections on a bridge: the module nf_conntrack_bridge (Linux 5.3 and newer) "
            "is missing",
            code="NoBridgeTracking",
            hint="use a kernel that has it, such as Debian's, or user networks",
        )
    if number in (errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
        return Refused(
            "this kernel has no nftables for bridges",
            code="NoNftables",
            hint="use a kernel that has it, such as Debian's, or user networks",
        )
    why = f"{_words(number)}{f' ({said})' if said else ''}"
    return Unavailable(f"the kernel refused {what}: {why}", code="FirewallNotLoaded")


def _words(number: int) -> str:
    if number == errno.ENOENT:
        return "it has no such thing, or a module is missing (nft_ct, nft_log, nft_limit, nft_meta_bridge)"
    return os.strerror(number)


def _made() -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)
    made.setblocking(False)
    made.setsockopt(_NETLINK_LEVEL, _CAPPED_ACK, 1)
    made.setsockopt(_NETLINK_LEVEL, _EXTENDED_ACK, 1)
    made.bind((0, 0))
    return made


def _exchanged(channel: socket.socket, request: bytes) -> bytes:
    """The kernel has done what it was asked for, and answered, when a send returns; of a list the next part is there
    when one was read."""
    with contextlib.suppress(BlockingIOError):
        while channel.recv(_READ_BYTES):
            pass  # of an exchange that failed half-way
    channel.send(request)
    return received(channel)
