"""The single things that are done to the kernel. A plan is a list of them; each is one or two netlink messages."""

from __future__ import annotations

from dataclasses import dataclass

from carmel.network.dataplane import BondMode
from carmel.network.host.kernel import Copies, Interface, Shape, Vlan


@dataclass(frozen=True, slots=True)
class MakeBridge:
    """``mac``: its own for ever; ``None``: that of one of its ports, as they come and go. ``hosts``: it is to have what
    addresses the host had on an uplink, perhaps of IPv6."""

    name: str
    alias: str
    mtu: int
    vlan_filtering: bool
    mac: str | None = None
    hosts: bool = False


@dataclass(frozen=True, slots=True)
class MakeBond:
    name: str
    alias: str
    mode: BondMode


@dataclass(frozen=True, slots=True)
class MakeShaper:
    name: str
    alias: str


@dataclass(frozen=True, slots=True)
class SetMtu:
    name: str
    mtu: int


@dataclass(frozen=True, slots=True)
class SetUp:
    name: str


@dataclass(frozen=True, slots=True)
class DisableIpv6:
    """VMs are not to reach this host by link-local addresses, nor to give it addresses by router advertisements."""

    name: str


@dataclass(frozen=True, slots=True)
class SetMaster:
    """``down_first``: a bond takes only members that are down (bonding.rst)."""

    name: str
    master: str | None
    down_first: bool = False


@dataclass(frozen=True, slots=True)
class AddAddress:
    name: str
    address: Interface


@dataclass(frozen=True, slots=True)
class RemoveAddress:
    name: str
    address: Interface


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Addresses and routes of ``source`` go to ``target``."""

    source: str
    target: str


@dataclass(frozen=True, slots=True)
class AddVlan:
    """``own``: of the bridge itself rather than of a port."""

    name: str
    vlan: Vlan
    own: bool = False


@dataclass(frozen=True, slots=True)
class RemoveVlan:
    name: str
    vid: int
    own: bool = False


@dataclass(frozen=True, slots=True)
class SetShape:
    name: str
    shape: Shape | None


@dataclass(frozen=True, slots=True)
class SetCopies:
    name: str
    copies: Copies


@dataclass(frozen=True, slots=True)
class MarkPort:
    """Make a tap known as Carmel's."""

    name: str
    alias: str


@dataclass(frozen=True, slots=True)
class Take:
    """A representor becomes the port ``interface``. By one message: it never has the name without what it was."""

    name: str
    interface: str
    alias: str


@dataclass(frozen=True, slots=True)
class GiveBack:
    """A representor is itself again: down, in no bridge, without filters, called ``own``."""

    name: str
    own: str
    mtu: int


@dataclass(frozen=True, slots=True)
class Remove:
    name: str


Step = (
    MakeBridge | MakeBond | MakeShaper | MarkPort | Take | GiveBack | Remove | SetMtu | DisableIpv6 | SetUp | SetMaster
    | AddAddress | RemoveAddress | TakeOver | AddVlan | RemoveVlan | SetShape | SetCopies
)  # fmt: skip
