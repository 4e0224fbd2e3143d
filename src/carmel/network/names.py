"""What Carmel makes in the kernel, and how it is known again.

A link is Carmel's if its name has one of these beginnings *and* it is in Carmel's link group, which is set by the same
netlink message that makes it: no crash can leave one behind that is not recognised, and nobody else's link is taken
for ours. Taps get their group later, but go with the process that holds them.
"""

from __future__ import annotations

import hashlib

LINK_GROUP = 0x434D4C
"""``ip link`` shows it as a number; ``ip link show group 4410700`` lists all that Carmel made."""

BRIDGE, BOND, PORT, SHAPER = "cmb", "cmo", "cmp", "cmi"
FUNCTION_TAP = "cmf"
NAT_TABLE, GUARD_TABLE = "carmel-nat", "carmel-guard"


def _name(prefix: str, identity: str) -> str:
    """13 characters; the kernel takes 15 (IFNAMSIZ)."""
    return prefix + hashlib.sha256(identity.encode()).hexdigest()[:10]


def nat_bridge(network: str) -> str:
    return _name(BRIDGE, f"nat/{network}")


def nat_mac(network: str) -> str:
    """Of the bridge: locally administered (IEEE 802c, 02 in the first byte), and never one of QEMU's (52:54:00)."""
    tail = hashlib.sha256(f"nat/{network}".encode()).digest()[:5]
    return ":".join(f"{byte:02x}" for byte in b"\x02" + tail)


def uplink_bridge(members: tuple[str, ...]) -> str:
    """The same for all networks on one uplink: they are VLANs of one bridge."""
    return _name(BRIDGE, "uplink/" + "/".join(sorted(members)))


def bond_name(members: tuple[str, ...]) -> str:
    return _name(BOND, "/".join(sorted(members)))


def port_name(owner: str, nic: str) -> str:
    return _name(PORT, f"{owner}/{nic}")


def function_tap_name(owner: str, nic: str) -> str:
    """Of a NIC that is joined to a SmartNIC's function by the host's kernel."""
    return _name(FUNCTION_TAP, f"{owner}/{nic}")


def shaper_name(port: str) -> str:
    """The intermediate device that slows down what the port's VM sends."""
    return SHAPER + port.removeprefix(PORT)


def is_ours(name: str, group: int) -> bool:
    return group == LINK_GROUP and name.startswith((BRIDGE, BOND, PORT, SHAPER))


def is_function_tap(name: str, group: int) -> bool:
    """Carmel's as well, but of no network of the host's."""
    return group == LINK_GROUP and name.startswith(FUNCTION_TAP)
