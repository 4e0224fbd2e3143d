"""From a rule to matches: each is one box of peers x service, the smallest thing that is looked up."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import socket
from dataclasses import dataclass
from typing import NamedTuple

from carmel.network.firewall.model import ICMP, SCTP, TCP, UDP
from carmel.resources.firewallpolicy import FirewallPeer, FirewallPort, FirewallRule, IpBlock, TransportProtocol
from carmel.resources.labelselector import LabelSelector

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_PREFIXES = 4
"""A rule with more address blocks has them in one set: a hash lookup for each length of prefix would cost more."""

_NUMBERS = {TransportProtocol.TCP: (TCP,), TransportProtocol.UDP: (UDP,), TransportProtocol.SCTP: (SCTP,),
            TransportProtocol.ICMP: ICMP}  # fmt: skip


class Prefix(NamedTuple):
    """Addresses that start with the first ``length`` bits of ``bits`` (the network's address as a number)."""

    version: int
    length: int
    bits: int

    @property
    def width(self) -> int:
        return 32 if self.version == 4 else 128


class InSet(NamedTuple):
    """Addresses of one version that are in a named set."""

    version: int
    name: str


Peer = Prefix | InSet | None
"""``None``: everybody."""


class Service(NamedTuple):
    """A protocol (``None``: any) and, for protocols with ports, the first and last destination port."""

    protocol: int | None = None
    ports: tuple[int, int] | None = None


class Match(NamedTuple):
    peer: Peer
    service: Service


@dataclass(frozen=True, slots=True)
class SelectedVms:
    """VMs by their labels: in ``namespace``, or in the namespaces that ``namespaces`` matches."""

    namespace: str
    vms: LabelSelector | None
    namespaces: LabelSelector | None

    @property
    def name(self) -> str:
        def text(selector: LabelSelector | None) -> object:
            return None if selector is None else selector.to_json()

        # A selector of namespaces means the same wherever it is written.
        home = self.namespace if self.namespaces is None else None
        return "vms-" + _digest([home, text(self.vms), text(self.namespaces)])


@dataclass(frozen=True, slots=True)
class AddressBlocks:
    """Networks of both versions, none overlapping another."""

    networks: frozenset[Network]

    @property
    def name(self) -> str:
        return "net-" + _digest(sorted(str(one) for one in self.networks))


PeerSet = SelectedVms | AddressBlocks


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


class ReadRule:
    """A rule, of which matches are made when they are asked for; then only they are kept."""

    __slots__ = ("_found", "_rule", "action", "log", "name", "weight")

    def __init__(self, rule: FirewallRule, namespace: str) -> None:
        self.name = rule.name
        self.action = rule.action
        self.log = rule.log
        self.weight = _peer_weight(rule.peers) * _service_weight(rule.ports)
        """How many matches there are."""
        self._rule: tuple[FirewallRule, str] | None = (rule, namespace)
        self._found: tuple[list[Match], tuple[PeerSet, ...]] = ([], ())

    def matches(self) -> tuple[list[Match], tuple[PeerSet, ...]]:
        """They may overlap one another. With the sets that they name."""
        if self._rule is not None:
            self._found, self._rule = _matches_of(*self._rule), None
        return self._found


def _matches_of(rule: FirewallRule, namespace: str) -> tuple[list[Match], tuple[PeerSet, ...]]:
    peers, sets = _peers(rule.peers or [], namespace)
    services = _services(rule.ports or [])
    if len(peers) == len(services) == 1:
        return [Match(peers[0], services[0])], sets
    return [Match(peer, service) for peer in peers for service in services], sets


def _peer_weight(peers: list[FirewallPeer] | None) -> int:
    if not peers:
        return 1
    if len(peers) == 1 and (only := peers[0].ip_block) is not None:
        return 2 if only.except_ else 1
    blocks = [one.ip_block for one in peers if one.ip_block is not None]
    selectors = len(peers) - len(blocks)
    return 2 * selectors + (len(blocks) if _are_prefixes(blocks) else 2)


def _service_weight(ports: list[FirewallPort] | None) -> int:
    if not ports:
        return 1
    return len(ports) + len([port for port in ports if port.protocol is TransportProtocol.ICMP])


def _are_prefixes(blocks: list[IpBlock]) -> bool:
    """Whether each is looked up by itself; else all are one set."""
    return len(blocks) <= MAX_PREFIXES and not any(block.except_ for block in blocks)


def _peers(peers: list[FirewallPeer], namespace: str) -> tuple[list[Peer], tuple[PeerSet, ...]]:
    if not peers:
        return [None], ()
    if len(peers) == 1 and (only := peers[0].ip_block) is not None and not only.except_:
        return [prefix_of(only.cidr)], ()
    found: list[Peer] = []
    sets: list[PeerSet] = []
    blocks = [one.ip_block for one in peers if one.ip_block is not None]
    if _are_prefixes(blocks):
        found += [prefix_of(block.cidr) for block in blocks]
    else:
        sets.append(AddressBlocks(_without_overlaps(blocks)))
    sets += [SelectedVms(namespace, one.vm_selector, one.namespace_selector) for one in peers if one.ip_block is None]
    found += [InSet(version, name) for name in [one.name for one in sets] for version in (4, 6)]
    return found, tuple(sets)


def prefix_of(cidr: str) -> Prefix:
    """``cidr`` as the API has checked it. Not by ipaddress, which is ten times as slow: there may be ten thousand."""
    text, _, length = cidr.partition("/")
    version, family = (6, socket.AF_INET6) if ":" in text else (4, socket.AF_INET)
    bits = int.from_bytes(socket.inet_pton(family, text))
    return Prefix(version, int(length) if length else (32 if version == 4 else 128), bits)


def _without_overlaps(blocks: list[IpBlock]) -> frozenset[Network]:
    four: list[ipaddress.IPv4Network] = []
    six: list[ipaddress.IPv6Network] = []
    for block in blocks:
        for part in _remaining(ipaddress.ip_network(block.cidr), block.except_ or []):
            if isinstance(part, ipaddress.IPv4Network):
                four.append(part)
            else:
                six.append(part)
    return frozenset((*ipaddress.collapse_addresses(four), *ipaddress.collapse_addresses(six)))


def _remaining(whole: Network, excepted: list[str]) -> list[Network]:
    """``whole`` without ``excepted``, which lie within it."""
    left: list[Network] = [whole]
    for text in excepted:
        hole = ipaddress.ip_network(text)
        next_left: list[Network] = []
        for part in left:
            if not part.overlaps(hole):
                next_left.append(part)
            elif part.prefixlen < hole.prefixlen:
                next_left += part.address_exclude(hole)  # type: ignore[arg-type]
        left = next_left
    return left


def _services(ports: list[FirewallPort]) -> list[Service]:
    if not ports:
        return [Service()]
    return [
        Service(number, None if port.port is None else (port.port, port.end_port or port.port))
        for port in ports
        for number in ((TCP,) if port.protocol is TransportProtocol.TCP else _NUMBERS[port.protocol])
    ]
