"""A policy's lookups as nftables has them: a verdict map a lookup, and two chains that ask the maps in order.

The second chain, ``back``, is for answers of connections that were allowed under earlier rules: it asks the same maps
with source and destination exchanged, so that it judges the connection and not the packet.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from carmel.network.firewall.compile import Chain
from carmel.network.firewall.lookups import Lookup, Outcome, Shape
from carmel.network.firewall.model import PolicyRef, RuleRef
from carmel.network.firewall.nft_state import ChainState, ElementKey, Json, MapState, verdict_json
from carmel.resources.firewallpolicy import Action, Direction

_SHORT = {Direction.INGRESS: "in", Direction.EGRESS: "out"}
_LONGEST_NAME = 80
"""With what is added it stays within a comment's 128 characters (NFT_USERDATA_RULE_COMMENT)."""
_LOG_PREFIX = 120
"""Of the kernel's 127 (NF_LOG_PREFIXLEN)."""
_LOGS_A_SECOND = 10


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
    seen: Counter[str] = Counter()
    ways: dict[bool, list[Json]] = {False: [], True: []}
    plain = {Action.DENY: "drop", Action.ALLOW: allow_chain(chain.direction)}
    for lookup in chain.lookups:
        tag = _tag(lookup.shape)
        name = f"{base}/{tag}.{seen[tag]}"
        seen[tag] += 1
        lookups[name] = lookup
        verdicts: dict[ElementKey, str] = {
            key: plain[one.action] if not one.log else _log_chain(base, one.rule) for key, one in lookup.entries.items()
        }
        if verdicts.keys() != {()}:
            maps[name] = MapState(_types(lookup.shape), verdicts, counted=True)
        for back, rules in ways.items():
            guards = _guards(lookup.shape, chain.direction, back=back)
            if verdicts.keys() == {()}:
                rules.append({"expr": [*guards, {"counter": None}, verdict_json(verdicts[()])], "comment": name})
            else:
                key = _key_expression(lookup.shape, chain.direction, back=back)
                rules.append({"expr": [*guards, {"vmap": {"key": key, "data": f"@{name}"}}]})
    chains[base] = ChainState(tuple(ways[False]))
    chains[f"{base}/back"] = ChainState(tuple(ways[True]))
    logged = {one for lookup in chain.lookups for one in lookup.entries.values() if one.log}
    chains.update((_log_chain(base, one.rule), _logging(chain, one)) for one in logged)
    return Fragment(maps, chains, lookups)


def _log_chain(base: str, rule: RuleRef) -> str:
    return f"{base}/log{rule.position}"


def _logging(chain: Chain, outcome: Outcome) -> ChainState:
    """Of what is allowed, new connections; what a change of rules lets go on is not told again."""
    words = f"carmel {outcome.action.value} {chain.policy} {outcome.rule.place}"[: _LOG_PREFIX - 2]
    new = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}}
    only = [new] if outcome.action is Action.ALLOW else []
    limit = {"limit": {"rate": _LOGS_A_SECOND, "burst": 2 * _LOGS_A_SECOND, "per": "second"}}
    verdict = "drop" if outcome.action is Action.DENY else allow_chain(chain.direction)
    return ChainState(
        ({"expr": [*only, limit, {"log": {"prefix": f"{words}: "}}]}, {"expr": [verdict_json(verdict)]}),
    )


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


def _address(shape_version: int, direction: Direction, *, back: bool) -> Json:
    field = "saddr" if (direction is Direction.INGRESS) is not back else "daddr"
    return {"payload": {"protocol": "ip" if shape_version == 4 else "ip6", "field": field}}


def _port(*, back: bool) -> Json:
    return {"payload": {"protocol": "th", "field": "sport" if back else "dport"}}


def _guards(shape: Shape, direction: Direction, *, back: bool) -> list[Json]:
    guards = []
    if shape.version is not None and shape.members is None and shape.length is None:
        family = "ip" if shape.version == 4 else "ip6"
        guards.append(_is({"meta": {"key": "protocol"}}, family))
    if shape.members is not None and shape.version is not None:
        address = _address(shape.version, direction, back=back)
        guards.append(_is(address, f"@{set_name(shape.members, shape.version)}"))
    if shape.ports is not None:
        protocol, low, high = shape.ports
        guards.append(_is({"meta": {"key": "l4proto"}}, protocol))
        guards.append(_is(_port(back=back), {"range": [low, high]}))
    return guards


def _is(left: Json, right: Any) -> Json:
    return {"match": {"op": "==", "left": left, "right": right}}


def _key_expression(shape: Shape, direction: Direction, *, back: bool) -> Json:
    parts: list[Json] = []
    if shape.length is not None and shape.version is not None:
        address = _address(shape.version, direction, back=back)
        whole = 32 if shape.version == 4 else 128
        network = ipaddress.IPv4Network if shape.version == 4 else ipaddress.IPv6Network
        mask = network((0, shape.length)).netmask
        parts.append(address if shape.length == whole else {"&": [address, str(mask)]})
    if shape.protocol:
        parts.append({"meta": {"key": "l4proto"}})
    if shape.port:
        parts.append(_port(back=back))
    return parts[0] if len(parts) == 1 else {"concat": parts}
