"""Bundles of flows, what ovs-ofctl tells, and numbers that stay."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from carmel.network.ovs.flows import Does, FlowCount, Match, afresh, change, counts
from carmel.network.ovs.numbers import numbered
from carmel.network.ovs.tables import FIREWALL_TABLES, NETWORK_TABLES, Table

_A, _B = Match(1, 5, "ip"), Match(2, 0)


def test_a_change_has_only_what_differs() -> None:
    old = {_A: Does("drop"), _B: Does("resubmit(,1)")}
    new = {_B: Does("drop", 7), Match(3, 1, "arp"): Does("drop")}
    assert list(change(old, old)) == []
    assert list(change(old, dict(old))) == []
    assert list(change(old, new)) == [
        "delete_strict table=1,priority=5,ip",
        "add cookie=0x7,table=2,priority=0,actions=drop",
        "add table=3,priority=1,arp,actions=drop",
    ]


def test_afresh_empties_its_tables_and_no_others() -> None:
    lines = list(afresh([Table.SWITCH, Table.GUARD], {_A: Does("drop")}))
    assert lines == ["delete table=1", "delete table=30", "add table=1,priority=5,ip,actions=drop"]


def test_each_table_is_one_owners() -> None:
    assert not set(NETWORK_TABLES) & set(FIREWALL_TABLES)
    assert set(NETWORK_TABLES) | set(FIREWALL_TABLES) == set(Table)


def test_counts_are_read_as_ovs_ofctl_writes_them() -> None:
    said = """OFPST_FLOW reply (OF1.4) (xid=0x2):
 cookie=0x300000001, duration=4.1s, table=65, n_packets=12, n_bytes=720, priority=65000,reg5=0x3 actions=drop
 cookie=0x0, duration=4.119s, table=65, n_packets=0, n_bytes=0, idle_age=4, priority=0 actions=drop
"""
    assert list(counts(said)) == [FlowCount(0x300000001, 12, 720), FlowCount(0, 0, 0)]


names = st.lists(st.sampled_from("abcdefgh"), unique=True)


@given(names, names, names)
def test_numbers_stay_and_are_nobody_elses(first: list[str], second: list[str], third: list[str]) -> None:
    one = numbered(first, {})
    two = numbered(second, one)
    three = numbered(third, two)
    for numbers, wanted in ((one, first), (two, second), (three, third)):
        assert numbers.keys() == set(wanted)
        assert len(set(numbers.values())) == len(numbers)
    assert all(two[name] == one[name] for name in set(first) & set(second))
    # No higher than need be: numbers of what is gone are given again.
    assert max(three.values(), default=0) <= max(len(second), len(third), max(two.values(), default=0))
