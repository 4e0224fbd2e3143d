"""Transactions: what differs and nothing else, in an order that the kernel takes; and failures in words."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TypeVar

import pytest

from carmel.errors import CarmelError, Unavailable
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
from carmel.network.firewall.nft_rules import Counted
from carmel.network.firewall.nft_state import (
    AddChain,
    AddRule,
    AddTable,
    Command,
    DeleteTable,
    FlushChain,
    MapElements,
    SetElements,
)
from carmel.network.firewall.nft_watch import Told
from carmel.resources.firewallpolicy import Direction, FirewallPolicySpec

REF = PolicyRef("default", "web")
RULE = RuleRef(REF, Direction.INGRESS, 2, None)
COUNTED = Counted(
    f"{chain_name(REF, Direction.INGRESS)}/v4.len24.proto.port.0", Count(3, 180), (10 << 24 | 2 << 8, 6, 80), "allow-in"
)
C = TypeVar("C", bound=Command)


class FakeTables:
    """``Tables`` that keep what they are told. ``broken`` is what the next change fails with."""

    def __init__(self) -> None:
        self.told: list[list[Command]] = []
        self.broken: CarmelError | None = None
        self.counted: list[Counted] | None = None
        self.watching: Told | None = None

    async def apply(self, commands: Sequence[Command]) -> None:
        if self.broken is not None:
            raise self.broken
        self.told.append(list(commands))
        self.counted = self.counted or []

    async def counters(self) -> list[Counted] | None:
        return self.counted

    async def watch(self, told: Told) -> None:
        self.watching = told

    def close(self) -> None:
        self.watching = None


def vm(name: str, address: str, interface: str | None = None, **labels: str) -> PortBinding:
    return PortBinding(PortKey("default", name), name, labels, (ipaddress.ip_address(address),), interface)


def ruleset(*ports: PortBinding, rules: int = 3) -> Ruleset:
    cidrs = (f"10.{one >> 8}.{one & 255}.0/24" for one in range(rules))
    ingress = [{"peers": [{"ipBlock": {"cidr": cidr}}], "ports": [{"port": 80}]} for cidr in cidrs]
    ingress.append({"peers": [{"vmSelector": {"matchLabels": {"app": "proxy"}}}]})
    spec = FirewallPolicySpec.model_validate({"vmSelector": {"matchLabels": {"app": "web"}}, "ingress": ingress})
    return assemble([compile_policy(REF, spec)], ports, {})


WEB = vm("web", "10.9.0.1", "cmp0", app="web")


def of_kind(commands: list[Command], kind: type[C]) -> list[C]:
    return [one for one in commands if isinstance(one, kind)]


@pytest.fixture
def tables() -> FakeTables:
    return FakeTables()


async def test_the_first_load_replaces_whatever_is_there(tables: FakeTables) -> None:
    await NftFirewall(tables).load(ruleset(WEB))
    assert tables.told[0][:3] == [AddTable(), DeleteTable(), AddTable()]
    chains = {one.name for one in of_kind(tables.told[0], AddChain)}
    assert chains >= {"prerouting", "postrouting", "from-port"}


async def test_the_same_again_is_not_sent(tables: FakeTables) -> None:
    firewall = NftFirewall(tables)
    await firewall.load(ruleset(WEB))
    await firewall.load(ruleset(WEB))
    assert len(tables.told) == 1


async def test_a_vm_that_comes_changes_a_set_only(tables: FakeTables) -> None:
    firewall = NftFirewall(tables)
    await firewall.load(ruleset(WEB))
    await firewall.load(ruleset(WEB, vm("proxy", "10.9.0.2", app="proxy")))
    (added,) = of_kind(tables.told[1], SetElements)
    assert added.name.startswith("vms-")
    assert (added.elements, added.delete) == ({bytes((10, 9, 0, 2))}, False)
    # Beside that, the new generation.
    gates = {"gate-in", "gate-in-back", "gate-out", "gate-out-back", "allow-in", "allow-out"}
    assert {one.chain for one in of_kind(tables.told[1], AddRule)} == gates
    assert {one.name for one in of_kind(tables.told[1], FlushChain)} == gates
    assert not of_kind(tables.told[1], AddChain)


async def test_one_rule_more_is_one_element_more(tables: FakeTables) -> None:
    firewall = NftFirewall(tables)
    await firewall.load(ruleset(WEB, rules=500))
    await firewall.load(ruleset(WEB, rules=501))
    (added,) = of_kind(tables.told[1], MapElements)
    assert (added.entries, added.delete) == ({(int(ipaddress.ip_address("10.1.244.0")), 6, 80): "allow-in"}, False)


async def test_what_is_the_same_object_is_not_looked_into(tables: FakeTables) -> None:
    firewall = NftFirewall(tables)
    await firewall.load(whole := ruleset(WEB))
    chains = {chain: firewall._fragments[chain] for chain in whole.chains.values()}
    await firewall.load(Ruleset(whole.ports, whole.chains, {}, frozenset()))
    assert all(firewall._fragments[chain] is part for chain, part in chains.items())


async def test_after_a_failure_everything_is_sent_anew(tables: FakeTables) -> None:
    firewall = NftFirewall(tables)
    await firewall.load(ruleset(WEB))
    tables.broken = Unavailable("the kernel refused", code="FirewallNotLoaded")
    with pytest.raises(Unavailable, match="the kernel refused"):
        await firewall.load(ruleset(WEB, rules=4))
    tables.broken = None
    await firewall.load(ruleset(WEB, rules=4))
    assert DeleteTable() in tables.told[1]


async def test_a_table_that_is_gone_is_put_back(tables: FakeTables) -> None:
    firewall = NftFirewall(tables)
    await firewall.load(ruleset(WEB))
    tables.counted = None
    with pytest.raises(Unavailable, match="is gone"):
        await firewall.counters()
    await firewall.load(ruleset(WEB))
    assert len(tables.told) == 2


async def test_what_somebody_else_changed_is_told_and_replaced(tables: FakeTables) -> None:
    firewall = NftFirewall(tables)
    told: list[str | None] = []
    firewall.watch(told.append)
    await firewall.load(ruleset(WEB))
    assert tables.watching is not None
    tables.watching("nft (process 7)")
    assert told == ["nft (process 7)"]
    await firewall.load(ruleset(WEB))
    assert DeleteTable() in tables.told[1]


async def test_counters_are_given_to_their_rules(tables: FakeTables) -> None:
    firewall = NftFirewall(tables)
    await firewall.load(ruleset(WEB))
    tables.counted = [COUNTED]
    assert await firewall.counters() == {RULE: Count(3, 180)}


async def test_a_daemon_that_starts_goes_on_counting(tables: FakeTables) -> None:
    closed = Counted(COUNTED.name, Count(9, 900), (10 << 24 | 1 << 8, 6, 80), "drop")
    keyless = Counted(f"{chain_name(REF, Direction.INGRESS)}/gone.0", Count(1, 60), chain="in/default/web")
    tables.counted = [COUNTED, closed, keyless]
    await NftFirewall(tables).load(ruleset(WEB))
    begun = {one.name: one.counts for one in of_kind(tables.told[0], MapElements) if one.counts}
    # Not of what says something else now.
    assert begun == {COUNTED.name: {COUNTED.key: Count(3, 180)}}


@pytest.mark.parametrize("there", [True, False])
async def test_unknown_ports_are_closed_without_touching_what_is_in_force(tables: FakeTables, there: bool) -> None:
    tables.counted = [] if there else None
    firewall = NftFirewall(tables)
    await firewall.close_unknown()
    assert len(tables.told) == (0 if there else 1)
    await firewall.load(ruleset(WEB))
    assert of_kind(tables.told[-1], MapElements)


def test_names_stay_within_what_the_kernel_takes() -> None:
    long = PolicyRef("n" * 63, "p" * 253)
    assert len(chain_name(long, Direction.EGRESS)) < 100
    assert chain_name(long, Direction.EGRESS) != chain_name(PolicyRef("n" * 63, "p" * 252 + "q"), Direction.EGRESS)
