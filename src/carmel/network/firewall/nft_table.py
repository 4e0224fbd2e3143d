"""The firewall's table: the way of a packet, from the port that it comes from or goes to, to the policies' chains.

A connection that was judged carries so in its mark (``ct mark``): 30 bits say under which *generation* of the rules,
one bit that its sender's egress, one that its receiver's ingress was allowed. Packets of the current generation are let
through by the mark alone. Each change of the rules is a new generation, set by the same transaction: from then on every
connection, however long it lasts, is judged once more, and none lives by rules that are gone.

Answers (``ct direction reply``) are judged as the connection that they answer: those of a receiver by its ingress,
those to a sender by its egress, with source and destination exchanged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from carmel.network.firewall.compile import Chain, Ruleset
from carmel.network.firewall.matches import Network
from carmel.network.firewall.model import PolicyRef
from carmel.network.firewall.nft_chains import Fragment, allow_chain, chain_name, set_name, short
from carmel.network.firewall.nft_state import ChainState, ElementKey, Json, MapState, SetState, TableState, verdict_json
from carmel.resources.firewallpolicy import Direction

GENERATIONS = 1 << 30
_BIT = {Direction.EGRESS: 1, Direction.INGRESS: 2}
_BITS = 3
_MARK = {"ct": {"key": "mark"}}
_L4 = {"meta": {"key": "l4proto"}}
_PRIORITY = -100
"""After connection tracking (-200, NF_IP_PRI_CONNTRACK), before br_netfilter (0, NF_BR_PRI_BRNF)."""


def of_generation(table: TableState, generation: int) -> TableState:
    """The same rules, under which every connection is judged anew."""
    return replace(table, chains={**table.chains, **_gates(generation)})


def table_of(ruleset: Ruleset, generation: int, prefix: str, fragments: Callable[[Chain], Fragment]) -> TableState:
    """``prefix`` is how names of ports' interfaces begin: those that no rules are known for get nothing through."""
    parts = [fragments(chain) for chain in ruleset.chains.values()]
    here = {one.port.interface: one for one in ruleset.ports.values() if one.port.interface is not None}
    maps: dict[str, MapState] = {}
    chains: dict[str, ChainState] = {}
    for part in parts:
        maps.update(part.maps)
        chains.update(part.chains)
    for direction in Direction:
        for back in (False, True):
            entries: dict[ElementKey, str] = {}
            for interface, rules in here.items():
                policies = rules.of(direction)
                if policies is None:
                    entries[(interface,)] = "accept"
                else:
                    name = entries[(interface,)] = _profile_name(direction, policies, back=back)
                    chains[name] = _profile(direction, policies, back=back)
            maps[_ports_map(direction, back=back)] = MapState(("ifname",), entries)
    chains.update(_gates(generation))
    chains.update(_base(prefix))
    sets = {"ports": SetState("ifname", {name: name for name in here})}
    for name, members in ruleset.sets.items():
        for version in (4, 6):
            sets[set_name(name, version)] = _address_set(name, version, members)
    return TableState(sets, maps, chains)


def _address_set(name: str, version: int, members: Iterable[Network]) -> SetState:
    interval = not name.startswith("vms-")
    elements = {str(one): _network(one) for one in members if one.version == version}
    return SetState(f"ipv{version}_addr", elements, interval)


def _network(network: Network) -> Any:
    if network.prefixlen == network.max_prefixlen:
        return str(network.network_address)
    return {"prefix": {"addr": str(network.network_address), "len": network.prefixlen}}


def _ports_map(direction: Direction, *, back: bool) -> str:
    return f"ports-{short(direction)}" + ("-back" if back else "")


def _profile_name(direction: Direction, policies: tuple[PolicyRef, ...], *, back: bool) -> str:
    digest = hashlib.sha256(repr([tuple(one) for one in policies]).encode()).hexdigest()[:16]
    return f"profile-{short(direction)}-{digest}" + ("-back" if back else "")


def _profile(direction: Direction, policies: tuple[PolicyRef, ...], *, back: bool) -> ChainState:
    """The policies in order; what none decides is dropped."""
    names = (chain_name(one, direction) + ("/back" if back else "") for one in policies)
    return ChainState(
        (*(_rule({"jump": {"target": name}}) for name in names), _rule({"counter": None}, {"drop": None}))
    )


def _rule(*statements: Json) -> Json:
    return {"expr": list(statements)}


def _is(left: Json, right: Any, op: str = "==") -> Json:
    return {"match": {"op": op, "left": left, "right": right}}


def _goto(name: str) -> Json:
    return verdict_json(name)


def _masked(bits: int) -> Json:
    return {"&": [_MARK, 0xFFFFFFFF & ~bits]}


def _gates(generation: int) -> Mapping[str, ChainState]:
    """The only chains that name the generation."""
    base = (generation % GENERATIONS) << 2
    chains = {}
    for direction, bit in _BIT.items():
        other = _BITS & ~bit
        allowed = _is(_masked(other), base | bit)
        for back in (False, True):
            # What a VM sends: its own connections, and its answers to others'.
            outward = (direction is Direction.EGRESS) is not back
            name = {"meta": {"key": "iifname" if outward else "oifname"}}
            ports = {"vmap": {"key": name, "data": "@" + _ports_map(direction, back=back)}}
            rules = (_rule(allowed, {"accept": None}), _rule(ports), _rule({"drop": None}))
            chains[_gate(direction, back=back)] = ChainState(rules)
        keep = {"mangle": {"key": _MARK, "value": {"|": [_MARK, bit]}}}
        renew = {"mangle": {"key": _MARK, "value": base | bit}}
        chains[allow_chain(direction)] = ChainState(
            (_rule(_is(_masked(_BITS), base), keep, {"accept": None}), _rule(renew, {"accept": None}))
        )
    return chains


def _gate(direction: Direction, *, back: bool) -> str:
    return f"gate-{short(direction)}" + ("-back" if back else "")


def _base(prefix: str) -> Mapping[str, ChainState]:
    def hook(name: str) -> Json:
        return {"type": "filter", "hook": name, "prio": _PRIORITY, "policy": "accept"}

    def entry(interface: str, target: str) -> tuple[Json, ...]:
        return (_rule(_is({"meta": {"key": interface}}, f"{prefix}*"), _goto(target)),)

    return {
        "prerouting": ChainState(entry("iifname", "from-port"), hook("prerouting")),
        "postrouting": ChainState(entry("oifname", "to-port"), hook("postrouting")),
        "from-port": _port_chain("iifname", Direction.EGRESS, Direction.INGRESS, _FROM_PORT),
        "to-port": _port_chain("oifname", Direction.INGRESS, Direction.EGRESS, _TO_PORT),
    }


# What a NIC needs to have an address at all: ARP, neighbour and router discovery (RFC 4861) with the reports that
# snooping switches want (RFC 3810), DHCP (RFC 2131, RFC 8415). Who may answer to them is for the source guard.
_FROM_PORT = ((133, 135, 136, 131, 132, 143), ((68, 67), (546, 547)))
_TO_PORT = ((134, 135, 136, 130), ((67, 68), (547, 546)))


def _port_chain(
    interface: str,
    own: Direction,
    answers: Direction,
    basics: tuple[tuple[int, ...], tuple[tuple[int, int], ...]],
) -> ChainState:
    types, ports = basics
    there = {"meta": {"key": interface}}
    neighbours = _is({"payload": {"protocol": "icmpv6", "field": "type"}}, {"set": list(types)})
    directions = {"set": [["original", _goto(_gate(own, back=False))], ["reply", _goto(_gate(answers, back=True))]]}
    return ChainState(
        (
            _rule(_is(there, "@ports", "!="), {"counter": None}, {"drop": None}),
            _rule(_is({"meta": {"key": "protocol"}}, "arp"), {"accept": None}),
            _rule(neighbours, {"accept": None}),
            *(
                _rule(
                    _is({"payload": {"protocol": "udp", "field": "sport"}}, source),
                    _is({"payload": {"protocol": "udp", "field": "dport"}}, target),
                    {"accept": None},
                )
                for source, target in ports
            ),
            _rule({"vmap": {"key": {"ct": {"key": "direction"}}, "data": directions}}),
            # Neither a connection's nor an answer (another protocol, an invalid packet): judged for itself.
            _rule(_goto(_gate(own, back=False))),
        )
    )
