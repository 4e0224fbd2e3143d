"""Quantities."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carmel.units import format_bytes, human_bytes, parse_bytes


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("512Mi", 512 << 20), ("2Gi", 2 << 30), ("10G", 10**10), ("1.5Gi", 3 << 29), ("1k", 1000), (42, 42)],
)
def test_quantities(text: str | int, value: int) -> None:
    assert parse_bytes(text) == value


@pytest.mark.parametrize("text", ["", "x", "-1", "1e3", "1Kb", "1 Gi", "0.0001Ki", "9E9E", "9" * 30, "8Ei"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match=r"size|whole|larger"):
        parse_bytes(text)


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_formatting_is_exact(value: int) -> None:
    assert parse_bytes(format_bytes(value)) == value


def test_for_people() -> None:
    assert human_bytes(0) == "0 B"
    assert human_bytes(1 << 30) == "1 GiB"
    assert human_bytes(1234567890) == "1.15 GiB"
