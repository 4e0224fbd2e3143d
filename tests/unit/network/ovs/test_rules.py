"""Policies as flows: the shapes that one flow cannot say, sets by many, and what a change leaves as it is."""

from __future__ import annotations

import ipaddress
import itertools

from hypothesis import given
from hypothesis import strategies as st

from carmel.network.firewall import PolicyRef, PortBinding, PortKey, Ruleset, assemble, compile_policy
from carmel.network.firewall.compile import Chain
from carmel.network.ovs.flows import change
from carmel.network.ovs.rulebook import GENERATIONS, Rulebook, gates, rulebook
from carmel.network.ovs.rules import masks, parts_of
from carmel.network.ovs.tables import Table
from carmel.resources.firewallpolicy import Direction, FirewallPolicySpec

_REF = PolicyRef("default", "web")
_PORT = PortBinding(PortKey("default", "web"), "web", {"app": "web"}, (ipaddress.ip_address("10.0.0.1"),), "cmp0")


def _ruleset(ingress: list[dict[str, object]], *others: PortBinding) -> Ruleset:
    spec = FirewallPolicySpec.model_validate({"vmSelector": {"matchLabels": {"app": "web"}}, "ingress": ingress})
    return assemble([compile_policy(_REF, spec)], [_PORT, *others], {"default": {}})


def _vm(number: int, **labels: str) -> PortBinding:
    address = ipaddress.ip_address(f"10.1.0.{number}")
    return PortBinding(PortKey("default", f"vm{number}"), f"vm{number}", labels, (address,), f"cmp{number}")


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF))
def test_masks_cover_a_range_and_nothing_else(one: int, other: int) -> None:
    low, high = min(one, other), max(one, other)
    found = list(masks(low, high))
    assert len(found) <= 30
    spans = sorted((value, value | ~mask & 0xFFFF) for value, mask in found)
    assert all(value & mask == value for value, mask in found)
    assert spans[0][0] == low
    assert spans[-1][1] == high
    assert all(before[1] + 1 == after[0] for before, after in itertools.pairwise(spans))


def test_a_vm_that_comes_is_one_flow_of_a_set_and_its_own_port() -> None:
    rules: list[dict[str, object]] = [{"peers": [{"vmSelector": {"matchLabels": {"app": "proxy"}}}]}] * 1
    before = rulebook(_ruleset(rules, _vm(2, app="proxy")), Rulebook())
    after = rulebook(_ruleset(rules, _vm(2, app="proxy"), _vm(3, app="proxy")), before)
    lines = list(change(before.flows, after.flows))
    assert [line for line in lines if f"table={Table.SETS_SOURCE.value}," in line] == [
        "add table=63,priority=1,reg7=1,dl_type=0x0800,nw_src=10.1.0.3,actions=load:0x1->NXM_NX_REG11[]"
    ]
    # It has no policy: one flow for each way.
    assert len(lines) == 3


def test_a_rule_at_the_end_changes_nothing_of_those_before_it() -> None:
    rules: list[dict[str, object]] = [{"peers": [{"ipBlock": {"cidr": f"10.{n}.0.0/16"}}]} for n in range(50)]
    before = rulebook(_ruleset(rules), Rulebook())
    more: list[dict[str, object]] = [
        *rules,
        {"peers": [{"ipBlock": {"cidr": "192.0.2.0/24"}}], "ports": [{"port": 80}]},
    ]
    after = rulebook(_ruleset(more), before)
    assert len(list(change(before.flows, after.flows))) == 1
    assert before.rules.keys() <= after.rules.keys()


def test_a_rule_before_the_others_takes_no_flow_away() -> None:
    rules: list[dict[str, object]] = [
        {"peers": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]},
        {"peers": [{"vmSelector": {"matchLabels": {"app": "a"}}}]},
        {"ports": [{"port": 80}]},
    ]
    before = rulebook(_ruleset(rules), Rulebook())
    first: dict[str, object] = {"action": "Deny", "peers": [{"vmSelector": {"matchLabels": {"app": "b"}}}]}
    lines = list(change(before.flows, rulebook(_ruleset([first, *rules]), before).flows))
    assert not [line for line in lines if line.startswith("delete")]


def test_what_did_not_change_is_the_same_object() -> None:
    ruleset = _ruleset([{"ports": [{"port": 80}]}])
    before = rulebook(ruleset, Rulebook())
    after = rulebook(ruleset, before)
    chain = ruleset.chains[_REF, Direction.INGRESS]
    assert after.chains[chain][1] is before.chains[chain][1]


def test_a_policy_that_names_very_many_sets_is_asked_in_parts() -> None:
    rules: list[dict[str, object]] = [
        {"peers": [{"vmSelector": {"matchLabels": {"app": f"a{number}"}}}], "ports": [{"port": 1 + number}]}
        for number in range(300)
    ]
    ruleset = _ruleset(rules, *(_vm(number, app=f"a{number}") for number in range(2, 200)))
    chain = ruleset.chains[_REF, Direction.INGRESS]
    parts = parts_of(chain)
    assert len(parts) == 3
    assert [one for part in parts for one in part.lookups] == list(chain.lookups)
    assert all(len(part.sets) <= 128 for part in parts)
    book = rulebook(ruleset, Rulebook())
    asked = [does.actions for match, does in book.flows.items() if match.table is Table.CHAIN]
    assert len(asked) == 3
    # As OpenFlow has it, within the 64 KiB of a message.
    assert all(actions.count(",") < 1000 for actions in asked)


def test_a_generation_is_named_by_the_gates_alone() -> None:
    book = rulebook(_ruleset([{"ports": [{"port": 80}]}]), Rulebook())
    assert not any("ct_mark" in match.fields.lower() or "CT_MARK" in does.actions for match, does in book.flows.items())
    first, second = gates(GENERATIONS - 1), gates(GENERATIONS)
    assert first.keys() & second.keys() == {match for match in first if "ct_mark" not in match.fields}
    assert gates(0) == second
    assert all(
        0 < int(match.fields.rpartition("ct_mark=")[2]) < 1 << 32 for match in first if "ct_mark" in match.fields
    )


def test_an_empty_chain_has_one_empty_part() -> None:
    [part] = parts_of(Chain(_REF, Direction.INGRESS, ()))
    assert part.lookups == ()
    assert part.sets == ()
