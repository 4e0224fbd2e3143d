"""Where matches are put: few tables, the first rule wins, and rules that can never decide are found."""

from __future__ import annotations

import ipaddress
import time

import pytest

from carmel.errors import TooLarge
from carmel.network.firewall import Connection, PolicyRef, PortBinding, PortKey, assemble, compile_policy, decide
from carmel.network.firewall.compile import CompiledPolicy
from carmel.network.firewall.lookups import Shape
from carmel.resources.firewallpolicy import Direction, FirewallPolicySpec

PORT = PortBinding(PortKey("default", "p"), "vm", {}, (), "cmp0")


def compiled(*rules: dict[str, object], name: str = "p") -> CompiledPolicy:
    return compile_policy(PolicyRef("default", name), FirewallPolicySpec.model_validate({"ingress": list(rules)}))


def block(cidr: str, *ports: dict[str, object] | int, action: str = "Allow") -> dict[str, object]:
    wanted = [{"port": one} if isinstance(one, int) else one for one in ports]
    return {"peers": [{"ipBlock": {"cidr": cidr}}], "action": action, **({"ports": wanted} if wanted else {})}


def decided_by(policy: CompiledPolicy, peer: str, port: int) -> str | None:
    ruleset = assemble([policy], [PORT], {})
    found = decide(ruleset, PORT.key, Direction.INGRESS, Connection(ipaddress.ip_address(peer), 6, port))
    return None if found.rule is None else found.rule.place


def shapes(policy: CompiledPolicy) -> list[Shape]:
    return [one.shape for one in policy.chains[Direction.INGRESS].lookups]


def test_rules_that_do_not_overlap_share_a_table() -> None:
    policy = compiled(*(block(f"10.0.{number}.0/24", 80) for number in range(200)))
    assert shapes(policy) == [Shape(version=4, length=24, protocol=True, port=True)]
    assert decided_by(policy, "10.0.150.9", 80) == "ingress[150]"
    assert decided_by(policy, "10.0.150.9", 81) is None


def test_alternating_shapes_that_do_not_overlap_need_no_more_tables() -> None:
    rules = [
        block(f"10.{number}.0.0/16", 80) if number % 2 else block(f"10.{number}.0.1/32", {"port": 1, "endPort": 9})
        for number in range(200)
    ]
    assert len(shapes(compiled(*rules))) == 2


def test_overlapping_blocks_keep_their_order() -> None:
    holes = [block("10.0.1.0/24", 80, action="Deny"), block("10.0.0.0/16", 80), block("10.0.2.0/24", action="Deny")]
    policy = compiled(*holes, block("10.0.0.0/8"))
    assert decided_by(policy, "10.0.1.1", 80) == "ingress[0]"
    assert decided_by(policy, "10.0.2.1", 80) == "ingress[1]"
    assert decided_by(policy, "10.0.2.1", 81) == "ingress[2]"
    assert decided_by(policy, "10.3.0.1", 81) == "ingress[3]"


def entries(policy: CompiledPolicy) -> int:
    return sum(len(lookup.entries) for chain in policy.chains.values() for lookup in chain.lookups)


def test_rules_that_never_decide_are_named() -> None:
    policy = compiled(
        block("10.0.0.0/8", action="Deny"),
        block("10.1.0.0/16", 22),
        block("192.0.2.0/24", {"port": 80, "endPort": 90}),
        block("192.0.2.7/32", 85, action="Deny"),
        block("192.0.2.7/32", 91, action="Deny"),
        {"peers": [{"ipBlock": {"cidr": "10.2.0.0/16"}}, {"ipBlock": {"cidr": "11.0.0.0/8"}}]},
    )
    assert [one.place for one in policy.idle] == ["ingress[1]", "ingress[3]"]


def test_ipv6_and_ipv4_do_not_meet() -> None:
    policy = compiled(block("::/0", 80), block("0.0.0.0/0", 80, action="Deny"))
    assert policy.idle == ()
    assert decided_by(policy, "fd00::1", 80) == "ingress[0]"
    assert decided_by(policy, "10.0.0.1", 80) == "ingress[1]"


def test_many_blocks_with_exceptions_are_two_sets() -> None:
    peers = [{"ipBlock": {"cidr": f"10.{number}.0.0/16", "except": [f"10.{number}.7.0/24"]}} for number in range(200)]
    policy = compiled({"peers": [*peers, {"ipBlock": {"cidr": "10.0.0.0/15"}}], "ports": [{"port": 80}]})
    assert entries(policy) == 2
    assert decided_by(policy, "10.9.7.1", 80) is None
    assert decided_by(policy, "10.9.8.1", 80) == "ingress[0]"
    assert decided_by(policy, "10.1.7.1", 80) == "ingress[0]"


def test_rules_that_all_overlap_are_arranged_in_time() -> None:
    """The worst there is: every rule overlaps every other in another shape, so that each has a table of its own."""
    rules: list[dict[str, object]] = [
        {"peers": [{"vmSelector": {"matchLabels": {"app": f"a{number}"}}}], "action": "Deny" if number % 2 else "Allow"}
        for number in range(2000)
    ]
    began = time.process_time()
    policy = compiled(*rules)
    assert entries(policy) == 4000
    # A quadratic search would take a hundred times as long.
    assert time.process_time() - began < 10


def test_a_policy_that_alone_is_too_large_is_refused() -> None:
    ports = [{"port": number} for number in range(1, 1025)]
    peers = [{"ipBlock": {"cidr": f"10.0.{number}.0/24"}} for number in range(4)]
    with pytest.raises(TooLarge, match="65,536"):
        compiled(*({"peers": peers, "ports": ports} for _ in range(17)))
