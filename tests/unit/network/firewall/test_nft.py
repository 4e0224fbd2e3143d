"""Transactions: what differs and nothing else, in an order that the kernel takes; and failures in words."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from carmel.errors import CarmelError, Refused, Unavailable
from carmel.network.firewall import (
    Count,
    NftFirewall,
    PolicyRef,
    PortBinding,
    PortKey,
    RuleRef,
    Ruleset,
    assemble,
    compile_policy,
)
from carmel.network.firewall.nft_chains import chain_name
from carmel.resources.firewallpolicy import Direction, FirewallPolicySpec
from carmel.run import Command, Result

REF = PolicyRef("default", "web")


class Nft:
    """Keeps what it is told; answers as it is told."""

    def __init__(self) -> None:
        self.told: list[list[dict[str, Any]]] = []
        self.answer = Result(0, b"", b"")

    async def run(
        self, command: Command, *, check: bool = True, on_line: Callable[[str], None] | None = None
    ) -> Result:
        if command.stdin is not None:
            self.told.append(orjson.loads(command.stdin)["nftables"])
        return self.answer


def vm(name: str, address: str, interface: str | None = None, **labels: str) -> PortBinding:
    return PortBinding(PortKey("default", name), name, labels, (ipaddress.ip_address(address),), interface)


def ruleset(*ports: PortBinding, rules: int = 3) -> Ruleset:
    cidrs = (f"10.{one >> 8}.{one & 255}.0/24" for one in range(rules))
    ingress = [{"peers": [{"ipBlock": {"cidr": cidr}}], "ports": [{"port": 80}]} for cidr in cidrs]
    ingress.append({"peers": [{"vmSelector": {"matchLabels": {"app": "proxy"}}}]})
    spec = FirewallPolicySpec.model_validate({"vmSelector": {"matchLabels": {"app": "web"}}, "ingress": ingress})
    return assemble([compile_policy(REF, spec)], ports, {})


WEB = vm("web", "10.9.0.1", "cmp0", app="web")


def of_kind(commands: list[dict[str, Any]], verb: str, kind: str) -> list[dict[str, Any]]:
    return [one[verb][kind] for one in commands if kind in one.get(verb, {})]


async def test_the_first_load_replaces_whatever_is_there() -> None:
    nft = Nft()
    await NftFirewall(nft).load(ruleset(WEB))
    verbs = [next(iter(one)) for one in nft.told[0][:3]]
    assert verbs == ["add", "delete", "add"]
    assert {one["name"] for one in of_kind(nft.told[0], "add", "chain")} >= {"prerouting", "postrouting", "from-port"}


async def test_the_same_again_is_not_sent() -> None:
    nft = Nft()
    firewall = NftFirewall(nft)
    await firewall.load(ruleset(WEB))
    await firewall.load(ruleset(WEB))
    assert len(nft.told) == 1


async def test_a_vm_that_comes_changes_a_set_only() -> None:
    nft = Nft()
    firewall = NftFirewall(nft)
    await firewall.load(ruleset(WEB))
    await firewall.load(ruleset(WEB, vm("proxy", "10.9.0.2", app="proxy")))
    commands = nft.told[1]
    (added,) = of_kind(commands, "add", "element")
    assert added["name"].startswith("vms-")
    assert added["elem"] == ["10.9.0.2"]
    # Beside that, the new generation.
    changed = {one["chain"] for one in of_kind(commands, "add", "rule")}
    assert changed == {"gate-in", "gate-in-back", "gate-out", "gate-out-back", "allow-in", "allow-out"}
    assert not of_kind(commands, "add", "chain")


async def test_one_rule_more_is_one_element_more() -> None:
    nft = Nft()
    firewall = NftFirewall(nft)
    compiled = ruleset(WEB, rules=500)
    await firewall.load(compiled)
    await firewall.load(ruleset(WEB, rules=501))
    (added,) = of_kind(nft.told[1], "add", "element")
    assert added["elem"] == [[{"concat": ["10.1.244.0", 6, 80]}, {"goto": {"target": "allow-in"}}]]
    assert not of_kind(nft.told[1], "delete", "element")


async def test_after_a_failure_everything_is_sent_anew() -> None:
    nft = Nft()
    firewall = NftFirewall(nft)
    await firewall.load(ruleset(WEB))
    nft.answer = Result(1, b"", b"internal:0:0-0: Error: Could not process rule: No such file or directory\n")
    with pytest.raises(Unavailable, match="No such file"):
        await firewall.load(ruleset(WEB, rules=4))
    nft.answer = Result(0, b"", b"")
    await firewall.load(ruleset(WEB, rules=4))
    assert "delete" in nft.told[2][1]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (b"Error: Could not process rule: Protocol error", "NoBridgeTracking"),
        (b"Operation not permitted (you must be root)", "NotPermitted"),
    ],
)
async def test_what_the_machine_lacks_is_said(words: bytes, code: str) -> None:
    nft = Nft()
    nft.answer = Result(1, b"", words)
    with pytest.raises(Refused) as raised:
        await NftFirewall(nft).load(ruleset(WEB))
    assert raised.value.code == code


async def test_a_table_that_is_gone_is_put_back() -> None:
    nft = Nft()
    firewall = NftFirewall(nft)
    await firewall.load(ruleset(WEB))
    nft.answer = Result(1, b"", b"Error: No such file or directory")
    with pytest.raises(CarmelError, match="is gone"):
        await firewall.counters()
    nft.answer = Result(0, b"", b"")
    await firewall.load(ruleset(WEB))
    assert len(nft.told) == 2


async def test_counters_are_given_to_their_rules() -> None:
    nft = Nft()
    firewall = NftFirewall(nft)
    await firewall.load(ruleset(WEB))
    name = f"{chain_name(REF, Direction.INGRESS)}/v4.len24.proto.port.0"
    element = {"val": {"concat": ["10.0.2.0", "tcp", 80]}, "counter": {"packets": 3, "bytes": 180}}
    table = {"nftables": [{"map": {"name": name, "elem": [[{"elem": element}, {"goto": {"target": "allow-in"}}]]}}]}
    nft.answer = Result(0, orjson.dumps(table), b"")
    assert await firewall.counters() == {RuleRef(REF, Direction.INGRESS, 2, None): Count(3, 180)}


def test_names_stay_within_what_the_kernel_takes() -> None:
    long = PolicyRef("n" * 63, "p" * 253)
    assert len(chain_name(long, Direction.EGRESS)) < 100
    assert chain_name(long, Direction.EGRESS) != chain_name(PolicyRef("n" * 63, "p" * 252 + "q"), Direction.EGRESS)
