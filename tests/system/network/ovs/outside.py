"""What is at the other end of an uplink: frames with their VLAN tags (packet(7), ``PACKET_AUXDATA``)."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from carmel.network.netns import enter

_ETH_ALL, _SOL_PACKET, _PACKET_AUXDATA, _SO_RCVBUFFORCE = 3, 263, 8, 33
_VLAN_VALID = 1 << 4


class Outside:
    """A raw socket on ``interface`` in ``namespace``."""

    def __init__(self, namespace: Path, interface: str) -> None:
        made: list[socket.socket] = []

        def make() -> None:
            # A thread of its own: it is moved to the namespace for ever.
            enter(namespace)
            one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_ALL))
            one.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 8 << 20)
            one.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
            one.bind((interface, 0))
            made.append(one)

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        [self.socket] = made

    def send(self, frame: bytes) -> None:
        self.socket.send(frame)

    async def until(self, last: bytes, seconds: float = 5) -> list[tuple[int | None, bytes]]:
        """Frames with the VLANs that they are tagged with, up to one with ``last`` in it."""
        return await asyncio.to_thread(self._until, last, time.monotonic() + seconds)

    def _until(self, last: bytes, deadline: float) -> list[tuple[int | None, bytes]]:
        found: list[tuple[int | None, bytes]] = []
        while not found or last not in found[-1][1]:
            if not select.select([self.socket], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise TimeoutError(f"{last!r} does not come; {len(found)} others did")
            data, ancillary, _, _ = self.socket.recvmsg(70_000, 256)
            found.append((_vlan(ancillary), data))
        return found


def _vlan(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """Of tpacket_auxdata (linux/if_packet.h): the kernel takes the tag off before anybody sees the frame."""
    for level, kind, data in ancillary:
        if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA):
            status, *_, tci, _ = struct.unpack("=IIIHHHH", data)
            if status & _VLAN_VALID:
                return int(tci) & 0xFFF
    return None


@contextlib.contextmanager
def outside(namespace: Path, interface: str) -> Iterator[Outside]:
    made = Outside(namespace, interface)
    try:
        yield made
    finally:
        made.socket.close()
