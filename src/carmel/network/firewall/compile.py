"""The compiler: policies, and the ports that there are, to a ``Ruleset``. Pure; who loads it is another's business.

It has two halves, since policies change seldom and VMs often. ``compile_policy`` needs the policy alone: VMs are in it
as the names of sets. ``assemble`` says who is in those sets and which policies each port has.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from carmel.errors import TooLarge
from carmel.network.firewall.bursts import burst
from carmel.network.firewall.lookups import Lookup, Outcome, Shape, arrange
from carmel.network.firewall.matches import AddressBlocks, Match, Network, PeerSet, SelectedVms, matches_of
from carmel.network.firewall.model import PolicyRef, PortBinding, PortKey, RuleRef
from carmel.resources.firewallpolicy import Action, Direction, FirewallPolicySpec, FirewallRule

MAX_ENTRIES = 65_536
"""Matches that one host holds, all policies together. Each is an entry of a hash table in the kernel, about 200 bytes;
ten thousand take a tenth of a second of CPU time to load."""

Labels = Mapping[str, str]


@dataclass(frozen=True, eq=False, slots=True)
class Chain:
    """The rules of one policy for one direction. Compared by identity: one that did not change is the same object."""

    policy: PolicyRef
    direction: Direction
    lookups: tuple[Lookup, ...]

    @property
    def entries(self) -> int:
        return sum(len(one.entries) for one in self.lookups)


@dataclass(frozen=True, eq=False, slots=True)
class CompiledPolicy:
    """``idle`` are rules that never decide, since earlier ones match all that they do."""

    ref: PolicyRef
    spec: FirewallPolicySpec
    chains: Mapping[Direction, Chain]
    sets: tuple[PeerSet, ...]
    idle: tuple[RuleRef, ...] = ()
    refused: bool = False

    @property
    def order(self) -> tuple[int, PolicyRef]:
        return self.spec.priority, self.ref

    @property
    def entries(self) -> int:
        return sum(chain.entries for chain in self.chains.values())

    def selects(self, port: PortBinding) -> bool:
        return port.key.namespace == self.ref.namespace and self.spec.vm_selector.matches(port.labels)


@dataclass(frozen=True, slots=True)
class PortRules:
    """The policies that a port has for each direction, in the order in which they are asked; ``None``: no policy
    selects it, and everything passes."""

    port: PortBinding
    ingress: tuple[PolicyRef, ...] | None
    egress: tuple[PolicyRef, ...] | None

    def of(self, direction: Direction) -> tuple[PolicyRef, ...] | None:
        return self.ingress if direction is Direction.INGRESS else self.egress


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All that a data plane needs to know. ``sets``: addresses by the sets' names."""

    ports: Mapping[PortKey, PortRules]
    chains: Mapping[tuple[PolicyRef, Direction], Chain]
    sets: Mapping[str, frozenset[Network]]
    refused: frozenset[PolicyRef] = frozenset()


@burst()
def compile_policy(ref: PolicyRef, spec: FirewallPolicySpec) -> CompiledPolicy:
    """Raises ``TooLarge`` for a policy that alone has more matches than a host holds."""
    chains, sets, idle = {}, dict[str, PeerSet](), list[RuleRef]()
    for direction in spec.directions:
        rules = (spec.ingress if direction is Direction.INGRESS else spec.egress) or []
        matches, named = _matches(ref, direction, rules)
        sets.update((one.name, one) for one in named)
        lookups, deciding = arrange(matches)
        chains[direction] = Chain(ref, direction, lookups)
        if len(deciding) < len(rules):
            idle += [one for one in _references(ref, direction, rules) if one.position not in deciding]
    return CompiledPolicy(ref, spec, chains, tuple(sets.values()), tuple(idle))


def refused_policy(ref: PolicyRef, spec: FirewallPolicySpec) -> CompiledPolicy:
    """What stands for a policy that cannot be loaded: nothing passes where it would have been asked. Its denials are
    not known, so that anything else might let through what it forbids."""
    chains = {direction: _closed(ref, direction) for direction in spec.directions}
    first = spec.model_copy(update={"priority": -1})
    return CompiledPolicy(ref, first, chains, (), refused=True)


def _closed(ref: PolicyRef, direction: Direction) -> Chain:
    rule = RuleRef(ref, direction, 0, None)
    return Chain(ref, direction, (Lookup(Shape(), {(): Outcome(rule, Action.DENY)}),))


def _references(ref: PolicyRef, direction: Direction, rules: Sequence[FirewallRule]) -> Iterator[RuleRef]:
    return (RuleRef(ref, direction, index, rule.name) for index, rule in enumerate(rules))


def _matches(
    ref: PolicyRef, direction: Direction, rules: Sequence[FirewallRule]
) -> tuple[list[tuple[Match, Outcome]], list[PeerSet]]:
    found: list[tuple[Match, Outcome]] = []
    named: list[PeerSet] = []
    for reference, rule in zip(_references(ref, direction, rules), rules, strict=True):
        outcome = Outcome(reference, rule.action, rule.log)
        matches, sets = matches_of(rule, ref.namespace)
        named += sets
        for match in matches:
            found.append((match, outcome))
            if len(found) > MAX_ENTRIES:
                raise TooLarge(
                    f"the rules make more than {MAX_ENTRIES:,} matches (peers times ports)",
                    code="TooManyRules",
                    hint="put addresses into fewer, larger networks, or ports into ranges",
                )
    return found, named


def fitting(policies: Iterable[CompiledPolicy]) -> list[CompiledPolicy]:
    """The policies in the order in which they are asked; those that a host has no room left for are refused."""
    fitted, used = [], 0
    for policy in sorted(policies, key=lambda one: one.order):
        if used + policy.entries > MAX_ENTRIES:
            fitted.append(refused_policy(policy.ref, policy.spec))
        else:
            used += policy.entries
            fitted.append(policy)
    return sorted(fitted, key=lambda one: one.order)


def assemble(
    policies: Iterable[CompiledPolicy], ports: Sequence[PortBinding], namespaces: Mapping[str, Labels]
) -> Ruleset:
    """``namespaces``: their labels by their names."""
    ordered = fitting(policies)
    of_namespace: dict[str, list[CompiledPolicy]] = {}
    for policy in ordered:
        of_namespace.setdefault(policy.ref.namespace, []).append(policy)
    rules = {
        port.key: PortRules(port, *(_selecting(of_namespace, port, direction) for direction in Direction))
        for port in ports
    }
    used = {(ref, direction) for one in rules.values() for direction in Direction for ref in one.of(direction) or ()}
    chains = {
        (policy.ref, direction): chain
        for policy in ordered
        for direction, chain in policy.chains.items()
        if (policy.ref, direction) in used
    }
    wanted = {one.name: one for policy in ordered if any(key[0] == policy.ref for key in chains) for one in policy.sets}
    sets = {name: _members(one, ports, namespaces) for name, one in wanted.items()}
    return Ruleset(rules, chains, sets, frozenset(policy.ref for policy in ordered if policy.refused))


def _selecting(
    of_namespace: Mapping[str, list[CompiledPolicy]], port: PortBinding, direction: Direction
) -> tuple[PolicyRef, ...] | None:
    found = [
        policy.ref
        for policy in of_namespace.get(port.key.namespace, ())
        if direction in policy.chains and policy.selects(port)
    ]
    return tuple(found) or None


def _members(peers: PeerSet, ports: Sequence[PortBinding], namespaces: Mapping[str, Labels]) -> frozenset[Network]:
    if isinstance(peers, AddressBlocks):
        return frozenset(peers.networks)
    return frozenset(
        ipaddress.ip_network(address)
        for port in ports
        if _is_member(peers, port, namespaces)
        for address in port.addresses
    )


def _is_member(peers: SelectedVms, port: PortBinding, namespaces: Mapping[str, Labels]) -> bool:
    home = port.key.namespace
    if peers.namespaces is None:
        if home != peers.namespace:
            return False
    elif home not in namespaces or not peers.namespaces.matches(namespaces[home]):
        return False
    return peers.vms is None or peers.vms.matches(port.labels)
