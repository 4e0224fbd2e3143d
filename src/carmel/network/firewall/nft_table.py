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
from collections.abc import Callable, Iterable, Iterator, Mapping

from carmel.network.firewall.compile import Chain, Ruleset
from carmel.network.firewall.matches import Network
from carmel.network.firewall.model import UDP, PolicyRef
from carmel.network.firewall.nft_chains import Fragment, allow_chain, chain_name, set_name, short
from carmel.network.firewall.nft_keys import MACHINE, interface_key
from carmel.network.firewall.nft_rules import (
    BOTH_PORTS,
    ICMP_TYPE,
    Ask,
    Counter,
    Field,
    Is,
    Member,
    Part,
    Rule,
    SetMark,
    Verdict,
)
from carmel.network.firewall.nft_state import ChainState, ElementKey, Hook, Interval, MapState, SetState, TableState
from carmel.resources.firewallpolicy import Direction

GENERATIONS = 1 << 30
_BIT = {Direction.EGRESS: 1, Direction.INGRESS: 2}
_BITS = 3
_ALL_BITS = 0xFFFFFFFF
_PREROUTING, _POSTROUTING = 0, 4
"""NF_BR_PRE_ROUTING, NF_BR_POST_ROUTING."""
_PRIORITY = -100
"""After connection tracking (-200, NF_IP_PRI_CONNTRACK), before br_netfilter (0, NF_BR_PRI_BRNF)."""


def _octet(value: int) -> bytes:
    return value.to_bytes(1)


def table_of(
    ruleset: Ruleset,
    generation: int,
    prefix: str,
    fragments: Callable[[Chain], Fragment],
    known: Callable[[str, frozenset[Network]], SetState | None],
) -> TableState:
    """``prefix`` is how names of ports' interfaces begin: those that no rules are known for get nothing through.
    ``known`` may have what a set with these members became before."""
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
    chains.update(gates(generation))
    chains.update(_base(prefix))
    sets = {**_NEEDS, "ports": SetState("ifname", frozenset(map(interface_key, here)))}
    for name, members in ruleset.sets.items():
        for version in (4, 6):
            full = set_name(name, version)
            sets[full] = known(full, members) or _address_set(name, version, members)
    return TableState(sets, maps, chains)


def _address_set(name: str, version: int, members: Iterable[Network]) -> SetState:
    mine = [one for one in members if one.version == version]
    if name.startswith("vms-"):
        return SetState(f"ipv{version}_addr", frozenset(one.network_address.packed for one in mine))
    return SetState(f"ipv{version}_addr", frozenset(_intervals(mine)), interval=True)


def _intervals(networks: Iterable[Network]) -> Iterator[Interval]:
    """Of networks that do not overlap: those next to one another become one."""
    whole: tuple[int, int, int] | None = None
    for one in sorted(networks, key=lambda network: int(network.network_address)):
        first, last, size = int(one.network_address), int(one.broadcast_address), one.max_prefixlen // 8
        if whole is not None and first == whole[1] + 1:
            whole = whole[0], last, size
            continue
        if whole is not None:
            yield _interval(*whole)
        whole = first, last, size
    if whole is not None:
        yield _interval(*whole)


def _interval(first: int, last: int, size: int) -> Interval:
    after = last + 1
    return Interval(first.to_bytes(size), after.to_bytes(size) if after < 1 << 8 * size else None)


def _ports_map(direction: Direction, *, back: bool) -> str:
    return f"ports-{short(direction)}" + ("-back" if back else "")


def _profile_name(direction: Direction, policies: tuple[PolicyRef, ...], *, back: bool) -> str:
    digest = hashlib.sha256(repr([tuple(one) for one in policies]).encode()).hexdigest()[:16]
    return f"profile-{short(direction)}-{digest}" + ("-back" if back else "")


def _profile(direction: Direction, policies: tuple[PolicyRef, ...], *, back: bool) -> ChainState:
    """The policies in order; what none decides is dropped."""
    names = (chain_name(one, direction) + ("/back" if back else "") for one in policies)
    return ChainState((*(Rule((Verdict(name, jump=True),)) for name in names), Rule((Counter(), Verdict("drop")))))


def gates(generation: int) -> Mapping[str, ChainState]:
    """The only chains that name the generation."""
    base = (generation % GENERATIONS) << 2
    chains = {}
    for direction, bit in _BIT.items():
        allowed = _mark_is(base | bit, but=_BITS & ~bit)
        for back in (False, True):
            # What a VM sends: its own connections, and its answers to others'.
            outward = (direction is Direction.EGRESS) is not back
            ports = Ask((Part(Field.IN if outward else Field.OUT),), _ports_map(direction, back=back))
            rules = (Rule((allowed, Verdict("accept"))), Rule((ports,)), Rule((Verdict("drop"),)))
            chains[_gate(direction, back=back)] = ChainState(rules)
        keep = (_mark_is(base, but=_BITS), SetMark(_ALL_BITS, bit), Verdict("accept"))
        renew = (SetMark(0, base | bit), Verdict("accept"))
        chains[allow_chain(direction)] = ChainState((Rule(keep), Rule(renew)))
    return chains


def _mark_is(value: int, *, but: int) -> Is:
    """``but`` are the bits that do not count."""
    mask = (_ALL_BITS & ~but).to_bytes(4, MACHINE)
    return Is(Part(Field.MARK, mask), value.to_bytes(4, MACHINE))


def _gate(direction: Direction, *, back: bool) -> str:
    return f"gate-{short(direction)}" + ("-back" if back else "")


def _base(prefix: str) -> Mapping[str, ChainState]:
    def entry(name: Field, target: str) -> tuple[Rule, ...]:
        return (Rule((Is(Part(name), prefix.encode()), Verdict(target))),)

    return {
        "prerouting": ChainState(entry(Field.IN, "from-port"), Hook(_PREROUTING, _PRIORITY)),
        "postrouting": ChainState(entry(Field.OUT, "to-port"), Hook(_POSTROUTING, _PRIORITY)),
        "from-port": _port_chain(Field.IN, Direction.EGRESS, Direction.INGRESS, "needs-from", _FROM_PORT),
        "to-port": _port_chain(Field.OUT, Direction.INGRESS, Direction.EGRESS, "needs-to", _TO_PORT),
    }


# What a NIC needs to have an address at all: ARP, neighbour and router discovery (RFC 4861) with the reports that
# snooping switches want (RFC 3810), DHCP (RFC 2131, RFC 8415). Who may answer to them is for the source guard.
_FROM_PORT = ((68, 67), (546, 547))
_TO_PORT = ((67, 68), (547, 546))
_NEEDS = {
    "needs-from": SetState("icmpv6_type", frozenset(map(_octet, (133, 135, 136, 131, 132, 143)))),
    "needs-to": SetState("icmpv6_type", frozenset(map(_octet, (134, 135, 136, 130)))),
}
_ARP, _IP6 = (0x0806).to_bytes(2), (0x86DD).to_bytes(2)
"""EtherTypes."""
_ICMP6, _UDP = _octet(58), _octet(UDP)
_REPLY = _octet(1)
"""IP_CT_DIR_REPLY."""


def _port_chain(
    interface: Field, own: Direction, answers: Direction, needs: str, dhcp: tuple[tuple[int, int], ...]
) -> ChainState:
    accept = Verdict("accept")
    ports = (source.to_bytes(2) + target.to_bytes(2) for source, target in dhcp)
    return ChainState(
        (
            Rule((Member(interface, "ports", negated=True), Counter(), Verdict("drop"))),
            Rule((Is(Part(Field.PROTOCOL), _ARP), accept)),
            Rule((Is(Part(Field.PROTOCOL), _IP6), Is(Part(Field.L4PROTO), _ICMP6), Member(ICMP_TYPE, needs), accept)),
            *(Rule((Is(Part(Field.L4PROTO), _UDP), Is(Part(BOTH_PORTS), both), accept)) for both in ports),
            Rule((Is(Part(Field.DIRECTION), _REPLY), Verdict(_gate(answers, back=True)))),
            # What begins a connection, and what is neither a connection's nor an answer (another protocol, an invalid
            # packet), which is judged for itself.
            Rule((Verdict(_gate(own, back=False)),)),
        )
    )
