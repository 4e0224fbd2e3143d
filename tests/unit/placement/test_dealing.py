"""Shares: they add up, nobody gets more than it holds, and they are as even as can be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from carmel.placement.dealing import deal, deal_in_units

caps_and_weights = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), min_size=1, max_size=8)


@given(caps_and_weights, st.data())
def test_shares_add_up_and_fit(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    caps, weights = [cap for cap, _ in rows], [weight for _, weight in rows]
    total = data.draw(st.integers(0, sum(caps)))
    for shares in (deal(total, caps, weights), deal_in_units(total, caps, weights, (4, 2))):
        assert sum(shares) == total
        assert all(0 <= share <= cap for share, cap in zip(shares, caps, strict=True))


@given(st.integers(1, 8), st.integers(0, 1000))
def test_equal_weights_are_equal_shares(parts: int, total: int) -> None:
    shares = deal(total, [1000] * parts, [1] * parts)
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)


def test_what_has_no_weight_gets_only_the_rest() -> None:
    assert deal(10, [20, 20], [1, 0]) == [10, 0]
    assert deal(10, [6, 20], [1, 0]) == [6, 4]


def test_whole_units_where_that_comes_out() -> None:
    assert deal_in_units(12, [20, 20], [1, 1], (4,)) == [8, 4]
    assert deal_in_units(12, [7, 7], [1, 1], (4,)) == [6, 6], "only 8 fit in fours"
    assert deal_in_units(10, [20, 20], [1, 1], (4, 2)) == [6, 4]
