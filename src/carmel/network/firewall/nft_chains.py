"""A policy's lookups as nftables has them: a verdict map a lookup, and two chains that ask the maps in order.

The second chain, ``back``, is for answers of connections that were allowed under earlier rules: it asks the same maps
with source and destination exchanged, so that it judges the connection and not the packet.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from carmel.network.firewall.compile import Chain
from carmel.network.firewall.lookups import Lookup, Outcome, Shape
from carmel.network.firewall.model import LOGS_A_SECOND, PolicyRef, RuleRef, log_prefix
from carmel.network.firewall.nft_keys import MACHINE
from carmel.network.firewall.nft_rules import (
    DESTINATION,
    DESTINATION_PORT,
    SOURCE,
    SOURCE_PORT,
    Ask,
    Counter,
    Field,
    Is,
    Limit,
    Log,
    Member,
    Part,
    Payload,
    Rule,
    Statement,
    Verdict,
    Within,
)
from carmel.network.firewall.nft_state import ChainState, ElementKey, MapState
from carmel.resources.firewallpolicy import Action, Direction

_SHORT = {Direction.INGRESS: "in", Direction.EGRESS: "out"}
_LONGEST_NAME = 80
"""With what is added it stays within a comment's 128 characters (NFT_USERDATA_RULE_COMMENT)."""
_LOG_PREFIX = 120
"""Of the kernel's 127 (NF_LOG_PREFIXLEN)."""
_NEW = (1 << 3).to_bytes(4, MACHINE)
"""NF_CT_STATE_BIT(IP_CT_NEW), as a number of the machine's."""
_ETHERTYPE = {4: (0x0800).to_bytes(2), 6: (0x86DD).to_bytes(2)}


def short(direction: Direction) -> str:
    return _SHORT[direction]


def chain_name(policy: PolicyRef, direction: Direction) -> str:
    name = f"{policy.namespace}/{policy.name}"
    if len(name) > _LONGEST_NAME:
        name = f"{policy.namespace}/{hashlib.sha256(policy.name.encode()).hexdigest()[:24]}"
    return f"{short(direction)}/{name}"


def allow_chain(direction: Direction) -> str:
    return f"allow-{short(direction)}"


def set_name(name: str, version: int) -> str:
    return f"{name}-{version}"


@dataclass(frozen=True, slots=True)
class Fragment:
    """What one ``Chain`` is in nftables. ``rules`` says whose an entry of a map (by map and key) or a rule (by chain
    and comment) is, for the counters."""

    maps: Mapping[str, MapState]
    chains: Mapping[str, ChainState]
    lookups: Mapping[str, Lookup]


def fragment_of(chain: Chain) -> Fragment:
    base = chain_name(chain.policy, chain.direction)
    maps: dict[str, MapState] = {}
    lookups: dict[str, Lookup] = {}
    chains: dict[str, ChainState] = {}
    seen: dict[str, int] = {}
    ways: dict[bool, list[Rule]] = {False: [], True: []}
    plain = {Action.DENY: "drop", Action.ALLOW: allow_chain(chain.direction)}
    for lookup in chain.lookups:
        tag = _tag(lookup.shape)
        number = seen[tag] = seen.get(tag, -1) + 1
        name = f"{base}/{tag}.{number}"
        lookups[name] = lookup
        verdicts: dict[ElementKey, str] = {
            key: plain[one.action] if not one.log else _log_chain(base, one.rule) for key, one in lookup.entries.items()
        }
        if verdicts.keys() != {()}:
            maps[name] = MapState(_types(lookup.shape), verdicts, counted=True)
        for back, rules in ways.items():
            guards = _guards(lookup.shape, chain.direction, back=back)
            if verdicts.keys() == {()}:
                rules.append(Rule((*guards, Counter(), Verdict(verdicts[()])), name))
            else:
                rules.append(Rule((*guards, Ask(_key_parts(lookup.shape, chain.direction, back=back), name))))
    chains[base] = ChainState(tuple(ways[False]))
    chains[f"{base}/back"] = ChainState(tuple(ways[True]))
    logged = {one for lookup in chain.lookups for one in lookup.entries.values() if one.log}
    chains.update((_log_chain(base, one.rule), _logging(chain, one)) for one in logged)
    return Fragment(maps, chains, lookups)


def _log_chain(base: str, rule: RuleRef) -> str:
    return f"{base}/log{rule.position}"


def _logging(chain: Chain, outcome: Outcome) -> ChainState:
    """Of what is allowed, new connections; what a change of rules lets go on is not told again."""
    words = log_prefix(outcome.action, outcome.rule)[: _LOG_PREFIX - 2]
    new = Is(Part(Field.STATE, _NEW), bytes(4), negated=True)
    only = (new,) if outcome.action is Action.ALLOW else ()
    limit = Limit(LOGS_A_SECOND, 2 * LOGS_A_SECOND)
    verdict = "drop" if outcome.action is Action.DENY else allow_chain(chain.direction)
    return ChainState((Rule((*only, limit, Log(f"{words}: "))), Rule((Verdict(verdict),))))


def _tag(shape: Shape) -> str:
    """A name for the shape, from nothing that changes while the policy's text does not."""
    words = [f"v{shape.version}" if shape.version else "all"]
    words += [shape.members] if shape.members else []
    words += ["-".join(str(one) for one in shape.ports)] if shape.ports else []
    words += [f"len{shape.length}"] if shape.length is not None else []
    words += ["proto"] if shape.protocol else []
    words += ["port"] if shape.port else []
    return ".".join(words)


def _types(shape: Shape) -> tuple[str, ...]:
    types = [f"ipv{shape.version}_addr"] if shape.length is not None else []
    return (*types, *(["inet_proto"] if shape.protocol else []), *(["inet_service"] if shape.port else []))


def _address(version: int, direction: Direction, *, back: bool) -> Payload:
    return (SOURCE if (direction is Direction.INGRESS) is not back else DESTINATION)[version]


def _port(*, back: bool) -> Payload:
    return SOURCE_PORT if back else DESTINATION_PORT


def _guards(shape: Shape, direction: Direction, *, back: bool) -> list[Statement]:
    guards: list[Statement] = []
    if shape.version is not None:
        guards.append(Is(Part(Field.PROTOCOL), _ETHERTYPE[shape.version]))
    if shape.members is not None and shape.version is not None:
        address = _address(shape.version, direction, back=back)
        guards.append(Member(address, set_name(shape.members, shape.version)))
    if shape.ports is not None:
        protocol, low, high = shape.ports
        guards.append(Is(Part(Field.L4PROTO), protocol.to_bytes(1)))
        guards.append(Within(_port(back=back), low.to_bytes(2), high.to_bytes(2)))
    return guards


def _key_parts(shape: Shape, direction: Direction, *, back: bool) -> tuple[Part, ...]:
    parts: list[Part] = []
    if shape.length is not None and shape.version is not None:
        bits = 32 if shape.version == 4 else 128
        mask = ((1 << shape.length) - 1 << bits - shape.length).to_bytes(bits // 8)
        parts.append(Part(_address(shape.version, direction, back=back), None if shape.length == bits else mask))
    if shape.protocol:
        parts.append(Part(Field.L4PROTO))
    if shape.port:
        parts.append(Part(_port(back=back)))
    return tuple(parts)
