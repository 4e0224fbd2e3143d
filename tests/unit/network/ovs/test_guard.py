"""What the guard and the tables after it say: ports without guard, trunks, mirrors and limits."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from carmel.network.dataplane import PortPlan, Rate
from carmel.network.ovs.guard import guard_flows
from carmel.network.ovs.pipeline import Outside, Plugged, pipeline
from carmel.network.ovs.tables import Table

PLAN = PortPlan("vm", "eth0", "lan", "52:54:00:00:00:01", addresses=(IPv4Address("10.0.0.1"), IPv6Address("fd00::1")))
UPLINK = Outside(1, 1, {10: 2})


def _at(table: Table, ports: list[Plugged], **values: bool) -> dict[str, str]:
    flows = pipeline(ports, [UPLINK], firewalled=values.get("firewalled", True))
    return {match.fields: does.actions for match, does in flows.items() if match.table is table}


def test_a_port_without_guard_has_one_flow() -> None:
    [(match, does)] = guard_flows(replace(PLAN, source_guard=False), 5)
    assert (match.fields, does.actions) == ("in_port=5", "resubmit(,4)")


def test_what_passes_the_guard_has_the_ports_mac_address() -> None:
    flows = dict(guard_flows(PLAN, 5))
    passing = [match for match, does in flows.items() if does.actions == "resubmit(,4)"]
    assert passing
    assert all("dl_src=52:54:00:00:00:01" in match.fields for match in passing)
    assert {does.actions for match, does in flows.items() if match.priority == 90} == {"resubmit(,2)"}
    # An advertisement asks two questions: 2 targets and 3 sources are 5 flows, not 6.
    assert sum("nd_target" in match.fields for match in flows) == 2
    assert sum("ipv6_src" in match.fields for match in flows) == 3


def test_addresses_are_learned_only_where_somebody_may_have_any() -> None:
    guarded, free = Plugged(PLAN, 5, 1), Plugged(replace(PLAN, owner="free", source_guard=False), 6, 2)
    assert not any("learn(" in actions for actions in _at(Table.LEARN, [guarded]).values())
    learning = {fields for fields, actions in _at(Table.LEARN, [guarded, free]).items() if "learn(" in actions}
    assert learning == {"in_port=1,reg4=2", "in_port=6,reg4=2"}


def test_unknown_addresses_are_asked_for_where_they_can_be() -> None:
    ports = [Plugged(PLAN, 5, 1), Plugged(replace(PLAN, owner="free", source_guard=False), 6, 1)]
    flood = _at(Table.FLOOD, ports)
    assert [f"load:0x{number}->NXM_NX_REG9[]" in flood["reg4=1,reg7=0"] for number in (1, 5, 6)] == [True] * 3
    assert [f"load:0x{number}->NXM_NX_REG9[]" in flood["reg4=1,reg7=65536"] for number in (1, 5, 6)] == [
        True,
        False,
        True,
    ]


def test_floods_are_cut_into_what_a_message_holds() -> None:
    ports = [Plugged(replace(PLAN, owner=f"vm{number}"), 10 + number, 1) for number in range(450)]
    flood = _at(Table.FLOOD, ports)
    assert {f"reg4=1,reg7={number}" for number in range(3)} <= flood.keys()
    assert (
        sum(actions.count("resubmit(,34)") for fields, actions in flood.items() if "reg7=65536" not in fields)
        == 451 + 1
    )
    assert max(map(len, flood.values())) < 64 * 1024


def test_tags_come_off_and_on_and_off_for_the_next() -> None:
    port = Plugged(PLAN, 5, 1, {10: 2})
    classify, output = _at(Table.CLASSIFY, [port]), _at(Table.OUTPUT, [port])
    assert classify["in_port=5,dl_vlan=10"].endswith("load:0x2->NXM_NX_REG4[],pop_vlan,resubmit(,1)")
    assert output["reg9=5,reg4=2"] == "push_vlan:0x8100,set_field:4106->vlan_vid,output:5,pop_vlan"
    assert output["reg9=5"] == "output:5"


def test_limits_come_first_and_mirrors_see_what_the_vm_sends() -> None:
    port = Plugged(replace(PLAN, ingress=Rate(1000), egress=Rate(1000)), 5, 1, mirror=9)
    assert _at(Table.CLASSIFY, [port])["in_port=5,vlan_tci=0x0000/0x1fff"].startswith("meter:11,output:9,")
    assert _at(Table.OUTPUT, [port])["reg9=5"] == "meter:10,output:5,output:9"


def test_frames_pass_by_the_firewall_unless_there_is_none() -> None:
    port = Plugged(PLAN, 5, 1)
    for firewalled, ways in ((True, ("resubmit(,10)", "resubmit(,40)")), (False, ("resubmit(,30)", "resubmit(,50)"))):
        assert _at(Table.LEARN, [port], firewalled=firewalled)["in_port=5"] == ways[0]
        assert _at(Table.FLOOD_EACH, [port], firewalled=firewalled)[""] == ways[1]
