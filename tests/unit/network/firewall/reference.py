"""What FirewallPolicySpec's text says, said again as plainly as possible: the compiler is measured by it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from carmel.network.firewall import Connection, PolicyRef, PortBinding, RuleRef
from carmel.resources.firewallpolicy import (
    Action,
    Direction,
    FirewallPeer,
    FirewallPolicySpec,
    FirewallPort,
    TransportProtocol,
)

NUMBERS = {
    TransportProtocol.TCP: {6},
    TransportProtocol.UDP: {17},
    TransportProtocol.SCTP: {132},
    TransportProtocol.ICMP: {1, 58},
}

Policies = Mapping[PolicyRef, FirewallPolicySpec]


def judge(
    policies: Policies,
    ports: Sequence[PortBinding],
    namespaces: Mapping[str, Mapping[str, str]],
    port: PortBinding,
    direction: Direction,
    connection: Connection,
) -> tuple[Action, RuleRef | None]:
    selecting = sorted(
        (spec.priority, ref)
        for ref, spec in policies.items()
        if ref.namespace == port.key.namespace
        and spec.vm_selector.matches(port.labels)
        and direction in spec.directions
    )
    for _, ref in selecting:
        spec = policies[ref]
        rules = (spec.ingress if direction is Direction.INGRESS else spec.egress) or []
        for index, rule in enumerate(rules):
            peers_match = not rule.peers or any(
                _is_peer(one, ref.namespace, ports, namespaces, connection) for one in rule.peers
            )
            if peers_match and (not rule.ports or any(_is_port(one, connection) for one in rule.ports)):
                return rule.action, RuleRef(ref, direction, index, rule.name)
    return (Action.DENY if selecting else Action.ALLOW), None


def _is_peer(
    peer: FirewallPeer,
    home: str,
    ports: Sequence[PortBinding],
    namespaces: Mapping[str, Mapping[str, str]],
    connection: Connection,
) -> bool:
    if peer.ip_block is not None:
        excepted = any(connection.peer in ipaddress.ip_network(one) for one in peer.ip_block.except_ or [])
        return connection.peer in ipaddress.ip_network(peer.ip_block.cidr) and not excepted
    for port in ports:
        if connection.peer not in port.addresses:
            continue
        place = port.key.namespace
        if peer.namespace_selector is None:
            there = place == home
        else:
            there = place in namespaces and peer.namespace_selector.matches(namespaces[place])
        if there and (peer.vm_selector is None or peer.vm_selector.matches(port.labels)):
            return True
    return False


def _is_port(port: FirewallPort, connection: Connection) -> bool:
    if connection.protocol not in NUMBERS[port.protocol]:
        return False
    if port.port is None:
        return True
    return connection.port is not None and port.port <= connection.port <= (port.end_port or port.port)
