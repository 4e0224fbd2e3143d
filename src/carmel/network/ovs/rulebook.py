"""The firewall's tables: the way of a frame from the port that it comes from or goes to, to the policies. Pure.

Connections are tracked for each port in a zone of its own, for ports that policies select. The mark of one that was
allowed says under which *generation* of the rules: its packets pass by the mark alone. Each change of the rules is a
new generation, in the same bundle: from then on every connection is judged once more, and none lives by rules that are
gone.

Answers are judged as the connection that they answer: SWAP exchanges source and target, asks the same flows, and
exchanges them again. Of what is exchanged back, nothing is left for the datapath to do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from carmel.network.firewall.bursts import burst
from carmel.network.firewall.compile import Chain, PortRules, Ruleset
from carmel.network.firewall.model import PolicyRef, RuleRef
from carmel.network.ovs.flows import Does, Flows, Match
from carmel.network.ovs.numbers import numbered
from carmel.network.ovs.rules import ALLOWED, ChainFlows, Part, chain_flows, part_name, parts_of, set_flows
from carmel.network.ovs.tables import ANSWER, DECISION, SOURCE, STEP, TARGET, ZONE, Table, load, port_id, to
from carmel.resources.firewallpolicy import Direction

GENERATIONS = 1 << 31
OPEN = 0x6F70656E
_TRACKED = "ct_state=+trk-inv"

# What a NIC needs to have an address at all: ARP, neighbour and router discovery (RFC 4861) with the reports that
# snooping switches want (RFC 3810), DHCP (RFC 2131, RFC 8415). Who may answer to them is for the source guard.
_FROM_BASICS = ((133, 135, 136, 131, 132, 143), ("udp,tp_src=68,tp_dst=67", "udp6,tp_src=546,tp_dst=547"))
_TO_BASICS = ((134, 135, 136, 130), ("udp,tp_src=67,tp_dst=68", "udp6,tp_src=547,tp_dst=546"))


@dataclass(frozen=True, slots=True)
class Side:
    """FROM or TO: its tables, the register with the port, and where what passes goes on to."""

    first: Table
    basics: Table
    tracked: Table
    judge: Table
    verdict: Table
    port: str
    own: Direction
    on: Table


_SIDES = (
    Side(Table.FROM, Table.FROM_BASICS, Table.FROM_TRACKED, Table.FROM_JUDGE, Table.FROM_VERDICT, SOURCE,
         Direction.EGRESS, Table.SWITCH),
    Side(Table.TO, Table.TO_BASICS, Table.TO_TRACKED, Table.TO_JUDGE, Table.TO_VERDICT, TARGET,
         Direction.INGRESS, Table.OUTPUT),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rulebook:
    """All flows but those that name the generation (``gates``). ``steps`` and ``sets``: the numbers that names have;
    ``chains``: what was made of each, to be used again; ``rules``: whose a cookie is."""

    flows: Flows = field(default_factory=dict)
    steps: Mapping[str, int] = field(default_factory=dict)
    sets: Mapping[str, int] = field(default_factory=dict)
    chains: Mapping[Chain, tuple[tuple[Part, ...], ChainFlows]] = field(default_factory=dict)

    @property
    def rules(self) -> Mapping[int, RuleRef]:
        return {cookie: rule for _, one in self.chains.values() for cookie, rule in one.rules.items()}

    @property
    def logged(self) -> Mapping[int, RuleRef]:
        """The rules whose packets are to be logged, by cookie."""
        return {cookie: rule for _, one in self.chains.values() for cookie, rule in one.logged.items()}


def everything_passes() -> Flows:
    """As if there were no firewall. ``OPEN`` is the cookie of these flows."""
    return {Match(side.first, 0): Does(to(side.on), OPEN) for side in _SIDES}


@burst()
def rulebook(ruleset: Ruleset, before: Rulebook) -> Rulebook:
    """``before`` gave numbers to names, which are kept."""
    here = [one for one in ruleset.ports.values() if one.port.interface is not None]
    parts = {one: before.chains[one][0] if one in before.chains else parts_of(one) for one in ruleset.chains.values()}
    profiles = {_profile_name(way, asked): (way, asked) for one in here for way in Direction if (asked := one.of(way))}
    names = {chain: [part_name(chain, index) for index in range(len(some))] for chain, some in parts.items()}
    steps = numbered([*profiles, *(name for some in names.values() for name in some)], before.steps)
    sets = numbered(list(ruleset.sets), before.sets)
    earlier = {(one.policy, one.direction): made for one, (_, made) in before.chains.items()}
    chains: dict[Chain, tuple[tuple[Part, ...], ChainFlows]] = {}
    flows: dict[Match, Does] = {}
    for chain, some in parts.items():
        old = earlier.get((chain.policy, chain.direction))
        made = chain_flows(chain, some, [steps[name] for name in names[chain]], sets, old)
        chains[chain] = some, made
        flows.update(made.flows)
    for name, (direction, policies) in profiles.items():
        firsts = [steps[part_name(ruleset.chains[policy, direction], 0)] for policy in policies]
        flows[Match(Table.PROFILE, 0, f"{STEP}={steps[name]}")] = Does(_asks(firsts))
    for table, direction in ((Table.SETS_SOURCE, Direction.INGRESS), (Table.SETS_TARGET, Direction.EGRESS)):
        used = {
            name for chain, some in parts.items() if chain.direction is direction for one in some for name in one.sets
        }
        for name in sorted(used):
            flows.update(set_flows(sets[name], ruleset.sets[name], table))
    for side in _SIDES:
        flows.update(_side(side))
        for one in here:
            flows.update(_port(side, one, steps))
    flows.update(_swaps())
    return Rulebook(flows, steps, sets, chains)


def interfaces(ruleset: Ruleset) -> Mapping[int, str]:
    """Of ports that are here, by ``port_id``."""
    names = [one.port.interface for one in ruleset.ports.values() if one.port.interface is not None]
    return {port_id(name): name for name in names}


def _profile_name(direction: Direction, policies: tuple[PolicyRef, ...]) -> str:
    return f"profile {direction.value} {hashlib.sha256(repr([tuple(one) for one in policies]).encode()).hexdigest()}"


def _asks(chains: list[int]) -> str:
    """The policies in order. What one decided the next do not see: their flows want that nothing is decided."""
    return ",".join(word for chain in chains for word in (load(STEP, chain), to(Table.CHAIN)))


def gates(generation: int) -> Flows:
    """The only flows that name the generation."""
    mark = (generation % GENERATIONS) << 1 | 1
    flows = {}
    for side in _SIDES:
        flows[Match(side.tracked, 2, f"{_TRACKED},ct_mark={mark}")] = Does(to(side.on))
        commit = f"ct(commit,zone=NXM_NX_{ZONE.upper()}[0..15],exec(load:0x{mark:x}->NXM_NX_CT_MARK[])),{to(side.on)}"
        for kind in ("ip", "ipv6"):
            flows[Match(side.verdict, 1, f"{_TRACKED},{kind},{DECISION}={ALLOWED}")] = Does(commit)
    return flows


def _side(side: Side) -> Iterator[tuple[Match, Does]]:
    types, services = _FROM_BASICS if side.own is Direction.EGRESS else _TO_BASICS
    on = Does(to(side.on))
    # An uplink or a gateway. A port that no flow knows is closed.
    yield Match(side.first, 0, f"{side.port}=0"), on
    for basic in ("arp", *(f"icmp6,icmp_type={one}" for one in types), *services):
        yield Match(side.basics, 1, basic), on
    track = Does(f"ct(zone=NXM_NX_{ZONE.upper()}[0..15],table={side.tracked.value})")
    yield Match(side.basics, 0, "ip"), track
    yield Match(side.basics, 0, "ipv6"), track
    yield Match(side.basics, 0), Does(to(side.judge))
    yield Match(side.tracked, 1, f"{_TRACKED}+rpl"), Does(f"{load(ANSWER, 1)},{to(side.judge)}")
    # The first of a connection, or neither a connection's nor an answer (an invalid packet): judged for itself.
    yield Match(side.tracked, 0), Does(to(side.judge))
    yield Match(side.verdict, 0, f"{DECISION}={ALLOWED}"), on


def _port(side: Side, rules: PortRules, steps: Mapping[str, int]) -> Iterator[tuple[Match, Does]]:
    interface = rules.port.interface
    assert interface is not None
    at = f"{side.port}=0x{port_id(interface):x}"
    selected = rules.ingress is not None or rules.egress is not None
    yield Match(side.first, 0, at), Does(to(side.basics if selected else side.on))
    if not selected:
        return
    other = Direction.INGRESS if side.own is Direction.EGRESS else Direction.EGRESS
    for answer, direction in enumerate((side.own, other)):
        policies = rules.of(direction)
        if policies is None:
            judged = load(DECISION, ALLOWED)
        else:
            step = load(STEP, steps[_profile_name(direction, policies)])
            judged = f"{load(DECISION, 0)},{step},{to(Table.SWAP if answer else Table.PROFILE)}"
        yield Match(side.judge, 0, f"{at},{ANSWER}={answer}"), Does(f"{judged},{to(side.verdict)}")


def _swaps() -> Iterator[tuple[Match, Does]]:
    for kind, four in (("ip", True), ("ipv6", False)):
        fields = ("NXM_OF_IP_SRC[]", "NXM_OF_IP_DST[]") if four else ("NXM_NX_IPV6_SRC[]", "NXM_NX_IPV6_DST[]")
        yield Match(Table.SWAP, 0, kind), Does(_swapped(fields))
        for protocol, name in (("tcp", "TCP"), ("udp", "UDP"), ("sctp", "SCTP")):
            prefix = "NXM" if name != "SCTP" else "OXM"
            ports = (f"{prefix}_OF_{name}_SRC[]", f"{prefix}_OF_{name}_DST[]")
            yield Match(Table.SWAP, 1, protocol if four else f"{protocol}6"), Does(_swapped(fields, ports))


def _swapped(*pairs: tuple[str, str]) -> str:
    swap = [f"push:{one},push:{other},pop:{one},pop:{other}" for one, other in pairs]
    return ",".join((*swap, to(Table.PROFILE), *swap))
