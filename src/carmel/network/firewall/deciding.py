"""What a ruleset decides for a connection: it is asked as a data plane asks it, lookup by lookup."""

from __future__ import annotations

import ipaddress

from carmel.errors import NotFound
from carmel.network.firewall.compile import Chain, Ruleset
from carmel.network.firewall.lookups import Key, Lookup, Outcome
from carmel.network.firewall.model import Connection, Decision, PortKey, Why
from carmel.resources.firewallpolicy import Action, Direction


def decide(ruleset: Ruleset, port: PortKey, direction: Direction, connection: Connection) -> Decision:
    """Whether ``connection`` may come to (ingress) or leave (egress) the port, and why. Raises ``NotFound``."""
    if port not in ruleset.ports:
        raise NotFound(f"there is no port {port}")
    policies = ruleset.ports[port].of(direction)
    if policies is None:
        return Decision(Action.ALLOW, Why.OPEN)
    for policy in policies:
        hit = _ask(ruleset, ruleset.chains[policy, direction], connection)
        if hit is not None and policy in ruleset.refused:
            return Decision(Action.DENY, Why.REFUSED, policies, hit.rule)
        if hit is not None:
            return Decision(hit.action, Why.RULE, policies, hit.rule)
    return Decision(Action.DENY, Why.ISOLATED, policies)


def _ask(ruleset: Ruleset, chain: Chain, connection: Connection) -> Outcome | None:
    for lookup in chain.lookups:
        key = _key(ruleset, lookup, connection)
        if key is not None and (hit := lookup.entries.get(key)) is not None:
            return hit
    return None


def _key(ruleset: Ruleset, lookup: Lookup, connection: Connection) -> Key | None:
    """What the lookup is asked with; ``None`` if a guard keeps the connection out or it lacks a part."""
    shape, peer = lookup.shape, connection.peer
    if shape.version is not None and peer.version != shape.version:
        return None
    if shape.members is not None and not _is_in(ruleset, shape.members, connection):
        return None
    if shape.ports is not None:
        protocol, low, high = shape.ports
        if connection.protocol != protocol or connection.port is None or not low <= connection.port <= high:
            return None
    key: list[int] = []
    if shape.length is not None:
        shift = peer.max_prefixlen - shape.length
        key.append(int(peer) >> shift << shift)
    if shape.protocol:
        key.append(connection.protocol)
    if shape.port:
        if connection.port is None:
            return None
        key.append(connection.port)
    return tuple(key)


def _is_in(ruleset: Ruleset, name: str, connection: Connection) -> bool:
    members = ruleset.sets.get(name, frozenset())
    if name.startswith("vms-"):
        return ipaddress.ip_network(connection.peer) in members
    return any(network.version == connection.peer.version and connection.peer in network for network in members)
