"""FirewallPolicy: which traffic the NICs of VMs may have. The shape of Kubernetes' NetworkPolicy, and beyond it
priority, deny and log."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import Field, field_validator

from carmel.errors import Cause
from carmel.resources.base import JsonObject, Model, Name, Resource, Status
from carmel.resources.kinds import Column, Kind
from carmel.resources.labelselector import LabelSelector

Cidr = Annotated[str, Field(min_length=3, max_length=49)]


class Direction(StrEnum):
    """As a VM sees it: ``Ingress`` comes to it, ``Egress`` goes out from it."""

    INGRESS = "Ingress"
    EGRESS = "Egress"


class Action(StrEnum):
    ALLOW = "Allow"
    DENY = "Deny"


class TransportProtocol(StrEnum):
    TCP = "TCP"
    UDP = "UDP"
    ICMP = "ICMP"
    SCTP = "SCTP"


def _network(value: str) -> str:
    if _is_plainly_a_network(value):
        return value
    try:
        ipaddress.ip_network(value)
    except ValueError as exc:
        raise ValueError(f"must be a network such as 10.0.0.0/8 or fd00::/8: {exc}") from None
    address, _, length = value.partition("/")
    if not length.isdecimal() or "%" in address:
        raise ValueError("must be a network such as 10.0.0.0/8 or fd00::/8: an address, a slash and a length")
    return value


def _is_plainly_a_network(value: str) -> bool:
    """Found out much faster than by ipaddress, as there may be tens of thousands. ``False`` is not the last word."""
    address, _, length = value.partition("/")
    if not (length.isascii() and length.isdecimal() and len(length) <= 3):
        return False
    family, bits = (socket.AF_INET6, 128) if ":" in address else (socket.AF_INET, 32)
    try:
        number = int.from_bytes(socket.inet_pton(family, address))
    except (OSError, ValueError):
        return False
    return int(length) <= bits and not number & ((1 << bits - int(length)) - 1)


class IpBlock(Model):
    """Addresses of a network, without those of ``except``."""

    cidr: Cidr
    except_: list[Cidr] | None = Field(default=None, alias="except", max_length=256)

    @field_validator("cidr")
    @classmethod
    def _is_network(cls, value: str) -> str:
        return _network(value)

    @field_validator("except_")
    @classmethod
    def _are_networks(cls, value: list[str] | None) -> list[str] | None:
        return [_network(one) for one in value] if value is not None else None


class FirewallPeer(Model):
    """The other side: addresses, or VMs by their labels (in this namespace, or in those that ``namespaceSelector``
    matches by their own labels)."""

    ip_block: IpBlock | None = None
    vm_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None


def are_peers(
    home: str,
    vms: LabelSelector | None,
    namespaces: LabelSelector | None,
    vm: tuple[str, Mapping[str, str]],
    labels_of: Mapping[str, Mapping[str, str]],
) -> bool:
    """Whether the two selectors of a peer, in a policy of the namespace ``home``, mean ``vm``: its namespace and its
    labels. ``labels_of``: the labels of namespaces by their names."""
    namespace, labels = vm
    if namespaces is None:
        if namespace != home:
            return False
    elif namespace not in labels_of or not namespaces.matches(labels_of[namespace]):
        return False
    return vms is None or vms.matches(labels)


class FirewallPort(Model):
    """A protocol, and of TCP, UDP and SCTP a destination port or a range up to ``endPort``. No port: all."""

    protocol: TransportProtocol = TransportProtocol.TCP
    port: int | None = Field(default=None, ge=1, le=65535)
    end_port: int | None = Field(default=None, ge=1, le=65535)


class FirewallRule(Model):
    """Traffic from (ingress) or to (egress) any of ``peers`` at any of ``ports``; none of either: all of them."""

    name: Name | None = Field(default=None, description="For people, and in counters and explanations.")
    action: Action = Action.ALLOW
    peers: list[FirewallPeer] | None = Field(default=None, max_length=1024)
    ports: list[FirewallPort] | None = Field(default=None, max_length=1024)
    log: bool = Field(default=False, description="Note each new connection that the rule decides, within a rate limit.")


class FirewallPolicySpec(Model):
    """``ingress`` and ``egress`` rules are asked in order, policies in order of priority (lowest number first), those
    of one priority by name. The first rule that matches decides. A VM that any policy selects for a direction has what
    no rule allows in that direction dropped; others have everything allowed, as in NetworkPolicy. Answers to what was
    allowed are always allowed."""

    vm_selector: LabelSelector = Field(
        default_factory=LabelSelector, description="The VMs of this namespace that it is for; empty: all."
    )
    priority: int = Field(default=1000, ge=0, le=65535, description="The lowest number is asked first.")
    policy_types: list[Direction] | None = Field(
        default=None, max_length=2, description="Directions that it governs; those that it has rules for when absent."
    )
    ingress: list[FirewallRule] | None = Field(default=None, max_length=4096)
    egress: list[FirewallRule] | None = Field(default=None, max_length=4096)

    @property
    def directions(self) -> tuple[Direction, ...]:
        """As in NetworkPolicy: ingress always, egress with rules for it, unless policyTypes says otherwise."""
        if self.policy_types is not None:
            return tuple(direction for direction in Direction if direction in self.policy_types)
        return (Direction.INGRESS, Direction.EGRESS) if self.egress is not None else (Direction.INGRESS,)


class RuleCounter(Model):
    """What a rule decided since it was loaded: of what it allows, the first packet of each connection (and one more
    after each change of rules), of what it denies each packet. ``rule``: ``ingress[0]``, or its name."""

    direction: Direction
    rule: str
    packets: int
    bytes: int


class FirewallPolicyStatus(Status):
    """``ports`` are the NICs that it is in force on here."""

    selected_vms: int | None = Field(default=None, alias="selectedVMs")
    ports: int | None = None
    rules: int | None = None
    counters: list[RuleCounter] | None = None


class FirewallPolicy(Resource):
    """A firewall policy."""

    spec: FirewallPolicySpec = Field(default_factory=FirewallPolicySpec)
    status: FirewallPolicyStatus = Field(default_factory=FirewallPolicyStatus)


def _validate(new: JsonObject, _old: JsonObject | None) -> list[Cause]:
    spec = FirewallPolicySpec.model_validate(new.get("spec") or {})
    causes = []
    for field, rules in (("ingress", spec.ingress), ("egress", spec.egress)):
        if rules and Direction(field.capitalize()) not in spec.directions:
            causes.append(Cause(f"spec.{field}", "has rules, but spec.policyTypes does not name it"))
        names = set[str]()
        for index, rule in enumerate(rules or []):
            place = f"spec.{field}[{index}]"
            if rule.name in names:
                causes.append(Cause(f"{place}.name", f"another rule is called {rule.name}", "FieldValueDuplicate"))
            names |= {rule.name} if rule.name is not None else set()
            for number, peer in enumerate(rule.peers or []):
                causes += _peer_causes(f"{place}.peers[{number}]", peer)
            for number, port in enumerate(rule.ports or []):
                causes += _port_causes(f"{place}.ports[{number}]", port)
    return causes


def _peer_causes(field: str, peer: FirewallPeer) -> list[Cause]:
    block = peer.ip_block
    selects = peer.vm_selector is not None or peer.namespace_selector is not None
    if block is None:
        return [] if selects else [Cause(field, "needs ipBlock, vmSelector or namespaceSelector", "FieldValueRequired")]
    if selects:
        return [Cause(field, "has ipBlock and a selector: make two peers of it", "FieldValueForbidden")]
    if not block.except_:
        return []
    whole = ipaddress.ip_network(block.cidr)
    causes = []
    for index, text in enumerate(block.except_):
        part = ipaddress.ip_network(text)
        if part.version != whole.version or not part.subnet_of(whole):  # type: ignore[arg-type]
            causes.append(Cause(f"{field}.ipBlock.except[{index}]", f"is not within {block.cidr}"))
    return causes


def _port_causes(field: str, port: FirewallPort) -> list[Cause]:
    if port.protocol is TransportProtocol.ICMP and (port.port is not None or port.end_port is not None):
        return [Cause(f"{field}.port", "ICMP has no ports", "FieldValueForbidden")]
    if port.end_port is not None and (port.port is None or port.end_port < port.port):
        return [Cause(f"{field}.endPort", "needs port, and is not below it")]
    return []


FIREWALL_POLICY = Kind(
    group="carmel.dev",
    version="v1alpha1",
    kind="FirewallPolicy",
    plural="firewallpolicies",
    short_names=("fwp",),
    categories=("carmel",),
    model=FirewallPolicy,
    validate=_validate,
    columns=(
        Column("Priority", ".spec.priority", "integer"),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("VMs", ".status.selectedVMs", "integer"),
        Column("Rules", ".status.rules", "integer", priority=1),
        Column("Age", ".metadata.creationTimestamp", "date"),
    ),
)
