"""What the firewall is told and what it decides: ports, connections, rules by name, decisions. Values only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, Protocol

from carmel.resources.firewallpolicy import Action, Direction

Address = IPv4Address | IPv6Address

TCP, UDP, SCTP = 6, 17, 132
ICMP = (1, 58)
"""Protocol numbers (IANA "Assigned Internet Protocol Numbers"): ICMP is 1 for IPv4 and 58 for IPv6."""


class PolicyRef(NamedTuple):
    """A policy by name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class PortKey(NamedTuple):
    """A Port by name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class RuleRef(NamedTuple):
    """One rule of a policy. ``label`` is its name, or its place in the policy (``ingress[0]``)."""

    policy: PolicyRef
    direction: Direction
    position: int
    name: str | None

    @property
    def place(self) -> str:
        return f"{self.direction.value.lower()}[{self.position}]"

    @property
    def label(self) -> str:
        return self.name or self.place


LOGS_A_SECOND = 10
"""Packets of one rule that are logged, at most; twice as many at once."""


def log_prefix(action: Action, rule: RuleRef) -> str:
    """What each line of a rule's log begins with."""
    return f"carmel {action.value} {rule.policy} {rule.place}"


@dataclass(frozen=True, slots=True)
class PortBinding:
    """One NIC of a VM: whose it is, which addresses it has, and where it is plugged.

    ``interface`` is the tap or representor on this machine; ``None`` for a NIC that is elsewhere, which is only a peer
    of those here. ``smart_nic`` names the SmartNIC that switches it, where that is not this machine. ``remote``: this
    machine has the Port as a peer only, and policies do not count it among the ports that they are for.
    """

    key: PortKey
    vm: str
    labels: Mapping[str, str]
    addresses: tuple[Address, ...] = ()
    interface: str | None = None
    smart_nic: str | None = None
    remote: bool = False


class LabelledVm(NamedTuple):
    """What policies select."""

    namespace: str
    name: str
    labels: Mapping[str, str]


class PortSource(Protocol):
    """Where the firewall's ports, and the VMs whose they are, come from."""

    def bindings(self) -> list[PortBinding]:
        """All that are known at the moment, those of other hosts included."""
        ...

    def vms(self) -> list[LabelledVm]:
        """All VMs that policies may select, those without ports included where they are known; one may be there
        more than once, with the labels of each of its ports."""
        ...

    def on_change(self, told: Callable[[], None]) -> None:
        """Call ``told`` whenever what the two others give has changed."""
        ...


@dataclass(frozen=True, slots=True)
class Connection:
    """The first packet of a connection, as the VM sees it: ``peer`` is the other side, ``port`` is the destination's
    (``None`` for protocols without)."""

    peer: Address
    protocol: int
    port: int | None = None


class Why(StrEnum):
    """What made a decision."""

    RULE = "Rule"
    ISOLATED = "NoRuleAllows"
    OPEN = "NoPolicySelects"
    REFUSED = "PolicyRefused"


@dataclass(frozen=True, slots=True)
class Decision:
    """``rule`` is there with ``Why.RULE``; ``policies`` are those that were asked, in their order."""

    action: Action
    why: Why
    policies: tuple[PolicyRef, ...] = ()
    rule: RuleRef | None = None


class Count(NamedTuple):
    packets: int
    bytes: int
