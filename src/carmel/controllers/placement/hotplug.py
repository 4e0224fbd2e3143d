"""Tells when the kernel says that CPUs or memory came or went, by its own events: nobody asks, so it costs nothing."""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from collections.abc import Callable

_log = logging.getLogger(__name__)

_KOBJECT_UEVENT = 15
"""``NETLINK_KOBJECT_UEVENT`` (linux/netlink.h)."""
_FROM_KERNEL = 1
"""The multicast group of the kernel's own events; group 2 is udev's (lib/kobject_uevent.c)."""
_MOST_BYTES = 8192
"""More than an event can be: ``UEVENT_BUFFER_SIZE`` is 2048, and the header before it is a path."""
_SUBSYSTEMS = frozenset({b"SUBSYSTEM=cpu", b"SUBSYSTEM=memory", b"SUBSYSTEM=node"})


class Hotplug:
    """``changed`` is called on the event loop, for each event: gather them. Where the kernel's events cannot be had
    (another system, a container) nothing is told, and the next look finds what changed."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._socket: socket.socket | None = None

    def start(self) -> None:
        if not sys.platform.startswith("linux"):
            return
        try:
            opened = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, _KOBJECT_UEVENT)
        except OSError as error:
            _log.debug("the kernel's events cannot be had: %s", error)
            return
        try:
            opened.bind((0, _FROM_KERNEL))
        except OSError as error:
            _log.debug("the kernel's events cannot be had: %s", error)
            opened.close()
            return
        self._socket = opened
        asyncio.get_running_loop().add_reader(opened, self._read, opened)

    def stop(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def _read(self, opened: socket.socket) -> None:
        try:
            data, sender = opened.recvfrom(_MOST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            # More events at once than the socket holds (ENOBUFS): some may have been ours.
            self._changed()
            return
        if concerns(data, sender):
            self._changed()


def concerns(data: bytes, sender: tuple[int, int]) -> bool:
    """Whether an event is the kernel's own (port 0: others may send too) and about CPUs, memory or nodes."""
    return sender[0] == 0 and not _SUBSYSTEMS.isdisjoint(data.split(b"\0"))
