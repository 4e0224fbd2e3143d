"""Tells when the kernel says that parts of the machine came or went, by its own events: nobody asks, so it is free."""

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
SILICON = frozenset({b"SUBSYSTEM=cpu", b"SUBSYSTEM=memory", b"SUBSYSTEM=node"})
FUNCTIONS = frozenset({b"SUBSYSTEM=pci", b"SUBSYSTEM=net", b"SUBSYSTEM=nvme"})
"""A PCI function comes, goes, or gets another driver; what that driver makes of it comes a moment later."""


class Hotplug:
    """``silicon`` is told of CPUs and memory, ``functions`` of PCI functions, on the event loop, for each event: gather
    them. Where the kernel's events cannot be had (another system, a container) nothing is told, and the next look finds
    what changed."""

    def __init__(self, silicon: Callable[[], None], functions: Callable[[], None]) -> None:
        self._told = ((SILICON, silicon), (FUNCTIONS, functions))
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
            for _, tell in self._told:
                tell()
            return
        for subsystems, tell in self._told:
            if concerns(data, sender, subsystems):
                tell()


def concerns(data: bytes, sender: tuple[int, int], subsystems: frozenset[bytes]) -> bool:
    """Whether an event is the kernel's own (port 0: others may send too) and about one of these."""
    return sender[0] == 0 and not subsystems.isdisjoint(data.split(b"\0"))
