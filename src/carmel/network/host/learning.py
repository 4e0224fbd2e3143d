"""Which addresses VMs use where nobody gives them any: learned from ARP and neighbour discovery by the source guard.

Each port has a set of its own for each family, of a bounded size: who claims many addresses fills no other's. What was
not said for an hour is forgotten. It costs something for these frames only, and nothing is asked of the guest.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from carmel.network.dataplane import Address, PortPlan
from carmel.network.names import GUARD_TABLE

LEARNED = f"list sets table bridge {GUARD_TABLE}"
"""For ``learned``."""
_SIZES = {"4": ("ipv4_addr", 8), "6": ("ipv6_addr", 16)}
_FORGET = "1h"


def learns(port: PortPlan) -> bool:
    return port.source_guard and not port.addresses


def rules(port: PortPlan) -> Iterator[str]:
    """Without a verdict, for what has passed the guard: a set that is full takes no more, and the frame goes on."""
    four, six = (_name(port.interface, family) for family in _SIZES)
    # Probes for duplicates come from 0.0.0.0 (RFC 5227) and :: (RFC 4862): they ask, and claim nothing yet.
    yield f"meta protocol arp arp saddr ip != 0.0.0.0 update @{four} {{ arp saddr ip }}"
    yield f"meta protocol ip6 icmpv6 type {{ 135, 136 }} ip6 saddr != {{ ::, fe80::/10 }} update @{six} {{ ip6 saddr }}"


def make(interface: str) -> Iterator[str]:
    for family, (kind, size) in _SIZES.items():
        spec = f"type {kind}; size {size}; flags dynamic,timeout; timeout {_FORGET};"
        yield f"add set bridge {GUARD_TABLE} {_name(interface, family)} {{ {spec} }}"


def remove(interface: str) -> Iterator[str]:
    for family in _SIZES:
        yield f"delete set bridge {GUARD_TABLE} {_name(interface, family)}"


def learned(items: Sequence[Mapping[str, Any]] | None) -> dict[str, set[Address]]:
    """By port's interface what it was seen to use.

    nft 1.0.6 lists the sets of all tables of the family, whichever was asked for: those of the firewall, too.
    """
    found: dict[str, set[Address]] = {}
    for one in (item["set"] for item in items or () if "set" in item):
        name, dash, family = one["name"].rpartition("-")
        if one["table"] == GUARD_TABLE and dash and family in _SIZES:
            elements = one.get("elem", [])
            found.setdefault(name, set()).update(ipaddress.ip_address(each["elem"]["val"]) for each in elements)
    return found


def _name(interface: str, family: str) -> str:
    return f"{interface}-{family}"
