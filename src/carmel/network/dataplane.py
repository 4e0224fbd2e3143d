"""The data plane: what realises Networks and Ports on a machine. Values go in, file descriptors and counts come out.

Whoever has Networks and Ports (a controller) makes plans of them; whoever switches (a host's kernel, a SmartNIC's)
fulfils ``DataPlane``. A plan says all that a data plane needs to know, so that nothing below it reads resources.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Protocol

from carmel.network.names import port_name

Address = IPv4Address | IPv6Address

DEFAULT_MTU = 1500
NATIVE_VLAN = 1
"""Frames that are untagged on an uplink."""


class BondMode(StrEnum):
    """How the kernel calls them (bonding.rst, ``mode``)."""

    ACTIVE_BACKUP = "active-backup"
    LACP = "802.3ad"
    BALANCE_XOR = "balance-xor"


@dataclass(frozen=True, slots=True)
class NatPlan:
    """A private network behind the host's address. The host is its first address; DHCP gives each port its own."""

    subnet: IPv4Network
    dhcp: bool = True

    @property
    def gateway(self) -> IPv4Address:
        return self.subnet[1]


@dataclass(frozen=True, slots=True)
class UplinkPlan:
    """The way out of a bridge: one ``members`` without ``bond``, or several as one link. ``vlan``: of ports that name
    none; ``None``: the untagged frames.

    ``takeover``: the uplink's own addresses and routes move to the bridge, and back again unless that is confirmed
    within ``confirm_seconds``.
    """

    members: tuple[str, ...]
    bond: BondMode | None = None
    vlan: int | None = None
    takeover: bool = False
    confirm_seconds: int = 60


@dataclass(frozen=True, slots=True)
class NetworkPlan:
    """One Network: ``nat`` or ``uplink``, never both. ``mtu`` in bytes."""

    name: str
    nat: NatPlan | None = None
    uplink: UplinkPlan | None = None
    mtu: int = DEFAULT_MTU


@dataclass(frozen=True, slots=True)
class Rate:
    """``kbps``: 1000 bits a second. ``burst_kb``: 1000 bytes that may pass at once; ``None``: what 20 ms of it are."""

    kbps: int
    burst_kb: int | None = None


@dataclass(frozen=True, slots=True)
class PortPlan:
    """One NIC of a VM. ``owner`` and ``nic`` name it for ever (a VM's uid, the NIC's name in it).

    ``addresses``: those that the source guard lets out; empty: any, from this MAC only. Of a ``nat`` network it is the
    address that DHCP gives. ``trunk``: VLANs that pass tagged. ``mirror_to``: another port's ``interface``.
    ``ingress`` and ``egress`` are as the VM sees them. ``representor``: on a SmartNIC, the interface of a function that
    is plugged in, in place of a tap.
    """

    owner: str
    nic: str
    network: str
    mac: str
    vlan: int | None = None
    trunk: tuple[int, ...] = ()
    addresses: tuple[Address, ...] = ()
    source_guard: bool = True
    ingress: Rate | None = None
    egress: Rate | None = None
    mirror_to: str | None = None
    representor: str | None = None

    @property
    def interface(self) -> str:
        """The tap's name: it depends on owner and NIC alone."""
        return port_name(self.owner, self.nic)


@dataclass(frozen=True, slots=True)
class PortHandles:
    """What QEMU is given: one descriptor a queue, ``vhost`` as many or none. Whoever gets them closes them."""

    taps: tuple[int, ...]
    vhost: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PortCount:
    """As the VM sees it. ``dropped_packets``: by the source guard."""

    received_packets: int
    received_bytes: int
    sent_packets: int
    sent_bytes: int
    dropped_packets: int


class TakeoverStage(StrEnum):
    """``WAITING``: for somebody to confirm. ``ROLLED_BACK``: nobody did, and the uplink is as it was before."""

    WAITING = "waiting"
    CONFIRMED = "confirmed"
    ROLLED_BACK = "rolled-back"


@dataclass(frozen=True, slots=True)
class Takeover:
    """How the last takeover of an uplink went. ``deadline``: when it is, or would have been, undone."""

    stage: TakeoverStage
    started_at: datetime
    deadline: datetime


class DataPlane(Protocol):
    """Every call may be repeated: what is there already stays untouched. Ports are named by ``PortPlan.interface``."""

    @property
    def backend(self) -> str:
        """What it is, in a word for a network's status."""
        ...

    async def adopt(self, networks: Sequence[NetworkPlan], ports: Sequence[PortPlan]) -> None:
        """Begin with what an earlier daemon realised of these, as it realised it: what it made and is not among them is
        removed. What it had not realised yet, and what changed since, is up to later calls. Ports whose VM is gone are
        left out quietly."""
        ...

    async def ensure_network(self, network: NetworkPlan) -> None:
        """Raises ``Refused`` for what this machine cannot do or what contradicts other networks; nothing is changed
        then."""
        ...

    async def remove_network(self, name: str) -> None:
        """Raises ``Refused`` (``NetworkInUse``) while it has ports."""
        ...

    async def attach(self, port: PortPlan, queues: int = 1) -> PortHandles:
        """Make the port and plug it in. It lives as long as one of its descriptors is open.

        One with a ``representor`` has no descriptors: it takes that link, which must be nobody's, and ``detach`` gives
        it back as it was, but down. It may be attached again when the representor went away and came back. Raises
        ``Refused`` (``NoSuchRepresentor``, ``RepresentorInUse``).
        """
        ...

    async def update(self, port: PortPlan) -> None:
        """Change a port that is attached: VLANs, limits, guard, mirror. Raises ``NotFound``."""
        ...

    async def detach(self, interface: str) -> None: ...

    async def attached(self) -> Collection[str]:
        """The ports that were attached and not detached, whether or not their VM is still there, by interface."""
        ...

    async def counters(self) -> Mapping[str, PortCount]:
        """Of each port that is plugged in, by interface."""
        ...

    async def addresses(self) -> Mapping[str, Collection[Address]]:
        """What each port's VM uses as far as is known, by interface."""
        ...

    async def confirm(self, network: str) -> None:
        """The administrator is still there: keep the uplink as it is. Raises ``Refused`` (``NothingToConfirm``)."""
        ...

    async def takeover(self, network: NetworkPlan) -> Takeover | None:
        """Of its uplink, if there ever was one that was not forgotten with its network."""
        ...

    def watch(self, told: Callable[[str], None]) -> None:
        """Call ``told`` with who changed its filters or its masquerading in the kernel, once they were put back."""
        ...

    async def aclose(self) -> None:
        """Give up what this process holds. Networks and ports stay."""
        ...
