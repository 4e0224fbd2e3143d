"""The relay of a host, run in the host's network namespace: ``python -m tests.system.smartnic.carry DESCRIPTOR``.

The listener that it is given was bound in another namespace, where the test is: so the test reaches the NIC.
"""

from __future__ import annotations

import asyncio
import socket
import sys

from carmel.smartnic.relay import Relay
from tests.system.smartnic.ask import NIC, PORT


async def main() -> None:
    listener = socket.socket(fileno=int(sys.argv[1]))
    listener.setblocking(False)
    Relay(NIC, PORT).start(listener)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
