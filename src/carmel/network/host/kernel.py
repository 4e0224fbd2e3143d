"""What is in the kernel, as far as networks go: the value that plans are compared with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Interface, IPv6Interface

from carmel.network.names import is_ours

Interface = IPv4Interface | IPv6Interface

TICKS_PER_MICROSECOND = 15.625
"""Of tc's clock since Linux 2.6.29: 64 ns (include/net/pkt_sched.h, PSCHED_SHIFT)."""


@dataclass(frozen=True, slots=True)
class Vlan:
    """One VLAN of a bridge's port. ``pvid``: untagged frames that come in belong to it."""

    vid: int
    pvid: bool = False
    untagged: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """A token bucket filter (tc-tbf(8)): bytes a second, and the bytes that may pass at once."""

    bytes_per_second: int
    burst_bytes: int

    @property
    def ticks(self) -> int:
        """The burst as the kernel keeps it: the time that it takes at this rate."""
        return int(self.burst_bytes * 1_000_000 * TICKS_PER_MICROSECOND / self.bytes_per_second)


@dataclass(frozen=True, slots=True)
class Copies:
    """Where tc sends frames: ``redirect`` those that come in (to a shaper), ``mirror`` a copy of each either way."""

    redirect: str | None = None
    mirror: str | None = None

    def __bool__(self) -> bool:
        return self.redirect is not None or self.mirror is not None


@dataclass(frozen=True, slots=True)
class Lent:
    """A SmartNIC's representor that is plugged into a port: what it was called before, and its MTU. The kernel keeps
    it, in the alias, so that whoever finds the link knows what to give back."""

    name: str
    mtu: int

    def alias(self, owner: str, nic: str) -> str:
        return f"carmel port {owner} {nic}, lent by {self.name} mtu {self.mtu}"


_HAD_MTU = "had mtu {}"
_UPLINK = re.compile(r"carmel uplink .*, " + _HAD_MTU.format("([0-9]+)"))


def uplink_alias(members: Sequence[str], had_mtu: int | None) -> str:
    """Of a bridge. ``had_mtu``: what its uplink had before, for whoever gives that back."""
    alias = f"carmel uplink {' '.join(members)}"
    return alias if had_mtu is None else f"{alias}, {_HAD_MTU.format(had_mtu)}"


_LENT = re.compile(r"carmel port .*, lent by (\S+) mtu ([0-9]+)")


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface. ``shape`` is known as rate and ticks, which is what the kernel tells."""

    name: str
    index: int
    kind: str | None = None
    group: int = 0
    mac: str = ""
    mtu: int = 1500
    alias: str = ""
    up: bool = False
    loopback: bool = False
    master: str | None = None
    vlan_filtering: bool = False
    bond_mode: str | None = None
    addresses: frozenset[Interface] = frozenset()
    vlans: frozenset[Vlan] = frozenset()
    shape: tuple[int, int] | None = None
    copies: Copies = Copies()
    received: tuple[int, int] = (0, 0)
    sent: tuple[int, int] = (0, 0)

    @property
    def ours(self) -> bool:
        return is_ours(self.name, self.group)

    @property
    def lent(self) -> Lent | None:
        """It is a representor that was plugged into a port: it is given back, never removed."""
        match = _LENT.fullmatch(self.alias) if self.ours else None
        return None if match is None else Lent(match[1], int(match[2]))

    @property
    def uplink_had_mtu(self) -> int | None:
        """It is a bridge: the MTU that its uplink had before. Of a bond that is nobody's concern."""
        match = _UPLINK.fullmatch(self.alias) if self.ours else None
        return None if match is None else int(match[1])


@dataclass(frozen=True, slots=True)
class KernelState:
    """All links by name."""

    links: Mapping[str, Link] = field(default_factory=dict)
