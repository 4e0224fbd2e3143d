"""Tells that links came, went or changed, at once: the kernel's own notifications (rtnetlink(7), RTMGRP_LINK)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

from carmel.network.host.netlink import Netlink

_RTMGRP_LINK = 1
_PIECE_BYTES = 64 * 1024


class LinkEvents:
    """Calls ``told`` in the event loop. What changed is not said: whoever is told looks at everything afresh."""

    def __init__(self, netlink: Netlink, told: Callable[[], None]) -> None:
        self._netlink = netlink
        self._told = told
        self._socket: socket.socket | None = None

    async def start(self) -> None:
        self._socket = await self._netlink.call(lambda _route: _subscribed())
        asyncio.get_running_loop().add_reader(self._socket, self._read)

    def stop(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _read(self) -> None:
        assert self._socket is not None
        # ENOBUFS: more happened than was kept for us, which is news as well.
        with contextlib.suppress(OSError):
            while self._socket.recv(_PIECE_BYTES):
                pass
        self._told()


def _subscribed() -> socket.socket:
    listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    listener.bind((0, _RTMGRP_LINK))
    return listener
