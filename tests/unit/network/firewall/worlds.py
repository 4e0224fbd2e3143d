"""Small random worlds, close enough together that rules meet: few labels, nested networks, neighbouring ports."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from hypothesis import strategies as st

from carmel.network.firewall import (
    Connection,
    PolicyRef,
    PortBinding,
    PortKey,
    Ruleset,
    assemble,
    compile_policy,
)
from carmel.resources.firewallpolicy import (
    Action,
    Direction,
    FirewallPeer,
    FirewallPolicySpec,
    FirewallPort,
    FirewallRule,
    IpBlock,
    TransportProtocol,
)
from carmel.resources.labelselector import LabelOperator, LabelRequirement, LabelSelector

NAMESPACES = {"red": {"team": "red"}, "blue": {"team": "blue", "env": "lab"}}
ADDRESSES = (
    "10.0.0.1", "10.0.0.2", "10.0.1.1", "10.1.0.1", "192.0.2.7", "fd00::1", "fd00::2", "fd00:1::1", "2001:db8::7",
)  # fmt: skip
NETWORKS = (
    "0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/16", "10.0.0.0/24", "10.0.0.0/31", "10.0.0.1/32", "10.0.1.0/24",
    "192.0.2.0/24", "::/0", "fd00::/8", "fd00::/64", "fd00::1/128", "2001:db8::/32",
)  # fmt: skip
PORTS = (79, 80, 81, 443, 8080)


@dataclass(frozen=True)
class World:
    policies: dict[PolicyRef, FirewallPolicySpec]
    ports: list[PortBinding]

    def ruleset(self) -> Ruleset:
        return assemble([compile_policy(*one) for one in self.policies.items()], self.ports, NAMESPACES)


labels = st.fixed_dictionaries({}, optional={"app": st.sampled_from("ab"), "tier": st.sampled_from("xy")})
expressions = st.builds(
    lambda key, operator, values: LabelRequirement(
        key=key,
        operator=operator,
        values=values if operator in {LabelOperator.IN, LabelOperator.NOT_IN} else None,
    ),
    st.sampled_from(["app", "tier", "team"]),
    st.sampled_from(LabelOperator),
    st.lists(st.sampled_from(["a", "b", "x", "red"]), min_size=1, max_size=2),
)
selectors = st.builds(
    lambda match_labels, match_expressions: LabelSelector(
        match_labels=match_labels or None, match_expressions=match_expressions or None
    ),
    labels,
    st.lists(expressions, max_size=1),
)
team_selectors = st.sampled_from([{}, {"team": "red"}, {"env": "lab"}, {"team": "none"}]).map(
    lambda one: LabelSelector(match_labels=one)
)


@st.composite
def blocks(draw: st.DrawFn) -> IpBlock:
    whole = ipaddress.ip_network(draw(st.sampled_from(NETWORKS)))
    inner = [
        text
        for text in NETWORKS
        if (one := ipaddress.ip_network(text)).version == whole.version and one.subnet_of(whole)  # type: ignore[arg-type]
    ]
    excepted = draw(st.lists(st.sampled_from(inner), max_size=2))
    return IpBlock.model_validate({"cidr": str(whole), **({"except": excepted} if excepted else {})})


@st.composite
def peers(draw: st.DrawFn) -> FirewallPeer:
    if draw(st.booleans()):
        return FirewallPeer(ip_block=draw(blocks()))
    vms, teams = draw(st.sampled_from([(True, False), (False, True), (True, True)]))
    return FirewallPeer(
        vm_selector=draw(selectors) if vms else None, namespace_selector=draw(team_selectors) if teams else None
    )


@st.composite
def ports(draw: st.DrawFn) -> FirewallPort:
    protocol = draw(st.sampled_from(TransportProtocol))
    if protocol is TransportProtocol.ICMP or draw(st.booleans()):
        return FirewallPort(protocol=protocol)
    low = draw(st.sampled_from(PORTS))
    return FirewallPort(
        protocol=protocol, port=low, end_port=draw(st.none() | st.sampled_from([one for one in PORTS if one >= low]))
    )


rules = st.builds(
    FirewallRule,
    action=st.sampled_from(Action),
    peers=st.none() | st.lists(peers(), max_size=7),
    ports=st.none() | st.lists(ports(), max_size=3),
    log=st.booleans(),
)
specs = st.builds(
    FirewallPolicySpec,
    vm_selector=selectors,
    priority=st.sampled_from([10, 10, 20]),
    policy_types=st.none() | st.lists(st.sampled_from(Direction), min_size=1, unique=True),
    ingress=st.none() | st.lists(rules, max_size=6),
    egress=st.none() | st.lists(rules, max_size=6),
)
bindings = st.builds(
    lambda namespace, labels, addresses, number: PortBinding(
        PortKey(namespace, f"port-{number}"),
        f"vm-{number}",
        labels,
        tuple(ipaddress.ip_address(one) for one in addresses),
        f"cmp{number}",
    ),
    st.sampled_from(sorted(NAMESPACES)),
    labels,
    st.lists(st.sampled_from(ADDRESSES), max_size=2, unique=True),
    st.integers(0, 99),
)
references = st.builds(PolicyRef, st.sampled_from(sorted(NAMESPACES)), st.sampled_from("pqr"))
worlds = st.builds(
    World,
    st.dictionaries(references, specs, min_size=1, max_size=5),
    st.lists(bindings, min_size=1, max_size=5, unique_by=lambda one: one.key),
)
connections = st.one_of(
    st.builds(
        Connection,
        st.sampled_from(ADDRESSES).map(ipaddress.ip_address),
        st.sampled_from([6, 17, 132]),
        st.sampled_from([*PORTS, 82, 1]),
    ),
    st.builds(Connection, st.sampled_from(ADDRESSES).map(ipaddress.ip_address), st.sampled_from([1, 58, 47])),
)
