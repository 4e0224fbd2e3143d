"""The other end of a TCP connection, in the namespace outside: takes what it gets, or sends what it can.

A program of its own, copied to the NIC: `python3 offload_peer.py ADDRESS PORT sink|source SECONDS`, for one connection.
"""

from __future__ import annotations

import socket
import sys
import time

_PIECE = 1 << 18


def main() -> None:
    address, port, role, seconds = sys.argv[1:]
    with socket.create_server((address, int(port))) as server:
        print("listening", flush=True)
        connection, _ = server.accept()
    with connection:
        if role == "sink":
            piece = bytearray(_PIECE)
            while connection.recv_into(piece):
                pass
        else:
            ends = time.monotonic() + float(seconds)
            while time.monotonic() < ends:
                connection.sendall(bytes(_PIECE))


if __name__ == "__main__":
    main()
