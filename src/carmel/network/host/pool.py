"""Which address a NIC of a nat network gets. Pure: the same NIC gets the same one for as long as it is free.

The address is known before the VM starts, so the source guard never waits for a lease, and DHCP only says what was
decided.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network

from carmel.errors import Refused

_RESERVED = 2
"""The network's own address and the host's."""


def choose_address(
    subnet: IPv4Network, mac: str, taken: Collection[IPv4Address], before: IPv4Address | None = None
) -> IPv4Address:
    """``before`` if it is still one of ``subnet`` and free; else the first free one from where ``mac`` points.

    Raises ``Refused`` (``NoAddressLeft``).
    """
    count = subnet.num_addresses - _RESERVED - 1
    if (
        before is not None
        and before not in taken
        and before in subnet
        and 0 <= int(before) - int(subnet[_RESERVED]) < count
    ):
        return before
    start = int.from_bytes(hashlib.sha256(mac.encode()).digest()[:4], "big") % count
    for step in range(count):
        candidate = subnet[_RESERVED + (start + step) % count]
        if candidate not in taken:
            return candidate
    raise Refused(
        f"all {count} addresses of {subnet} are in use",
        code="NoAddressLeft",
        hint="make a network with a larger subnet",
    )
