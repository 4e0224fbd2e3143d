"""The compiler: policies, and the ports that there are, to a ``Ruleset``. Pure; who loads it is another's business.

It has two halves, since policies change seldom and VMs often. ``compile_policy`` needs the policy alone: VMs are in it
as the names of sets. ``assemble`` (in ``assembly``) says who is in those sets and which policies each port has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from carmel.errors import TooLarge
from carmel.network.firewall.bursts import burst
from carmel.network.firewall.lookups import Lookup, Outcome, Shape, arrange
from carmel.network.firewall.matches import Match, Network, PeerSet, ReadRule
from carmel.network.firewall.model import PolicyRef, PortBinding, PortKey, RuleRef
from carmel.resources.firewallpolicy import Action, Direction, FirewallPolicySpec
from carmel.resources.labelselector import LabelSelector

MAX_ENTRIES = 65_536
"""Matches that one host holds, all policies together. Each is an entry of a hash table in the kernel, about 200 bytes;
ten thousand take a tenth of a second of CPU time to load."""


@dataclass(frozen=True, eq=False, slots=True)
class Chain:
    """The rules of one policy for one direction. Compared by identity: one that did not change is the same object."""

    policy: PolicyRef
    direction: Direction
    lookups: tuple[Lookup, ...]


@dataclass(frozen=True, eq=False, slots=True)
class CompiledPolicy:
    """``idle`` are rules that never decide, since earlier ones match all that they do. What it was made of is not
    kept: the text of thousands of rules takes seven times as much memory as their lookups."""

    ref: PolicyRef
    priority: int
    vm_selector: LabelSelector
    chains: Mapping[Direction, Chain]
    sets: Mapping[str, PeerSet]
    idle: tuple[RuleRef, ...] = ()
    refused: bool = False

    @property
    def order(self) -> tuple[int, PolicyRef]:
        """Those that are refused first: their denials are not known, and others might let through what they forbid."""
        return -1 if self.refused else self.priority, self.ref


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


@dataclass(frozen=True, slots=True)
class Draft:
    """A policy that was read, and not compiled yet."""

    ref: PolicyRef
    priority: int
    vm_selector: LabelSelector
    rules: Mapping[Direction, Sequence[ReadRule]]

    @property
    def weight(self) -> int:
        """How many of ``MAX_ENTRIES`` it needs."""
        return sum(rule.weight for rules in self.rules.values() for rule in rules)


def draft_of(ref: PolicyRef, spec: FirewallPolicySpec) -> Draft:
    written = {Direction.INGRESS: spec.ingress, Direction.EGRESS: spec.egress}
    rules = {one: [ReadRule(rule, ref.namespace) for rule in written[one] or ()] for one in spec.directions}
    return Draft(ref, spec.priority, spec.vm_selector, rules)


@burst()
def compile_policy(ref: PolicyRef, spec: FirewallPolicySpec) -> CompiledPolicy:
    """Raises ``TooLarge`` for a policy that alone has more matches than a host holds."""
    return compile_draft(draft_of(ref, spec))


@burst()
def compile_draft(draft: Draft) -> CompiledPolicy:
    """Raises ``TooLarge`` as ``compile_policy``."""
    if (weight := draft.weight) > MAX_ENTRIES:
        raise TooLarge(
            f"the rules make {weight:,} matches (peers times ports), and a host holds {MAX_ENTRIES:,}",
            code="TooManyRules",
            hint="put addresses into fewer, larger networks, or ports into ranges",
        )
    chains, sets, idle = {}, dict[str, PeerSet](), list[RuleRef]()
    for direction, rules in draft.rules.items():
        matches: list[tuple[Match, Outcome]] = []
        for position, rule in enumerate(rules):
            outcome = Outcome(RuleRef(draft.ref, direction, position, rule.name), rule.action, rule.log)
            found, named = rule.matches()
            matches += [(match, outcome) for match in found]
            sets.update((one.name, one) for one in named)
        lookups, deciding = arrange(matches)
        chains[direction] = Chain(draft.ref, direction, lookups)
        idle += [
            RuleRef(draft.ref, direction, position, rule.name)
            for position, rule in enumerate(rules)
            if position not in deciding
        ]
    return CompiledPolicy(draft.ref, draft.priority, draft.vm_selector, chains, sets, tuple(idle))


def refused_policy(draft: Draft) -> CompiledPolicy:
    """What stands for a policy that cannot be loaded: nothing passes to or from the VMs that it selects."""
    chains = {direction: _closed(draft.ref, direction) for direction in draft.rules}
    return CompiledPolicy(draft.ref, draft.priority, draft.vm_selector, chains, {}, refused=True)


def _closed(ref: PolicyRef, direction: Direction) -> Chain:
    rule = RuleRef(ref, direction, 0, None)
    return Chain(ref, direction, (Lookup(Shape(), {(): Outcome(rule, Action.DENY)}),))


class Room:
    """What a host has left of ``MAX_ENTRIES`` while policies are taken in the order in which they are asked. It is
    known before any is compiled, so that a hundred thousand rules cost no more than those that are loaded."""

    def __init__(self) -> None:
        self._left = MAX_ENTRIES

    def has(self, weight: int) -> bool:
        """Whether there is room for it, which is then its."""
        if weight > self._left:
            return False
        self._left -= weight
        return True


def compile_all(specs: Mapping[PolicyRef, FirewallPolicySpec]) -> list[CompiledPolicy]:
    """All policies of a host, with what stands for those that it has no room for."""
    room = Room()
    drafts = (draft_of(ref, spec) for ref, spec in sorted(specs.items(), key=lambda one: (one[1].priority, one[0])))
    return [compile_draft(one) if room.has(one.weight) else refused_policy(one) for one in drafts]
