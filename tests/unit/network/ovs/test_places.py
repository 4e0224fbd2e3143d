"""Priorities that keep the order, and stay as long as they can."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from carmel.network.ovs.places import FIRST, places

names = st.lists(st.integers(0, 30).map(str), unique=True)


@given(st.lists(names, min_size=1, max_size=6))
def test_the_order_is_kept_whatever_came_before(steps: list[list[str]]) -> None:
    found: dict[str, int] = {}
    for wanted in steps:
        found = places(wanted, found)
        assert list(found) == wanted
        assert all(1 <= one <= 65_535 for one in found.values())
        assert all(above > below for above, below in itertools.pairwise(found.values()))


@given(names, st.data())
def test_one_that_comes_moves_nobody(before: list[str], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(before)))
    first = places(before, {})
    after = places([*before[:at], "new", *before[at:]], first)
    assert {name: after[name] for name in before} == first
    assert places(before, after) == first


def test_when_there_is_no_room_all_move() -> None:
    found = places(["a", "b"], {})
    middle = ["a"]
    for number in range(200):
        middle.append(str(number))
        found = places([*middle, "b"], found)
    assert list(found) == [*middle, "b"]
    assert all(above > below for above, below in itertools.pairwise(found.values()))


def test_very_many_have_room() -> None:
    many = [str(number) for number in range(60_000)]
    found = places(many, {})
    assert found[many[0]] == FIRST
    assert found[many[-1]] >= 1
    assert len(set(found.values())) == len(many)
