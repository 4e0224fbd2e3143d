"""Whole things dealt out in proportion, none getting more than it can hold."""

from __future__ import annotations

from collections.abc import Sequence


def deal(total: int, caps: Sequence[int], weights: Sequence[int]) -> list[int]:
    """Shares that add up to ``total``, as close to the weights as the caps allow; what has no weight gets only what the
    others cannot hold. ``sum(caps)`` must suffice. Earlier ones get what does not divide."""
    shares = [0] * len(caps)
    rest = total
    while rest:
        room = [index for index, cap in enumerate(caps) if shares[index] < cap]
        assert room, f"{sum(caps)} cannot hold {total}"
        heavy = [index for index in room if weights[index]]
        scale = {index: weights[index] for index in heavy} or dict.fromkeys(room, 1)
        whole = sum(scale.values())
        given = 0
        for index, weight in scale.items():
            share = min(rest * weight // whole, caps[index] - shares[index])
            shares[index] += share
            given += share
        rest -= given
        if not given:
            for index in sorted(scale, key=lambda index: (-scale[index], index))[:rest]:
                shares[index] += 1
                rest -= 1
    return shares


def deal_in_units(total: int, caps: Sequence[int], weights: Sequence[int], units: Sequence[int]) -> list[int]:
    """As ``deal``, in the first of these units that comes out even and fits; 1 if none does."""
    for unit in units:
        if unit > 1 and total % unit == 0 and sum(cap // unit for cap in caps) * unit >= total:
            return [share * unit for share in deal(total // unit, [cap // unit for cap in caps], weights)]
    return deal(total, caps, weights)
