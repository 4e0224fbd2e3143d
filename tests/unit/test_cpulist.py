"""Lists of CPUs as the kernel writes them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carmel.cpulist import LARGEST, format_cpu_list, parse_cpu_list


@given(st.sets(st.integers(min_value=0, max_value=LARGEST)))
def test_what_is_written_is_read_again(numbers: set[int]) -> None:
    assert parse_cpu_list(format_cpu_list(numbers)) == tuple(sorted(numbers))


@pytest.mark.parametrize(
    ("text", "numbers"), [("", ()), ("0\n", (0,)), ("0-2,5", (0, 1, 2, 5)), (" 3, 1 ,3-4", (1, 3, 4))]
)
def test_reads_what_kernels_and_people_write(text: str, numbers: tuple[int, ...]) -> None:
    assert parse_cpu_list(text) == numbers


@pytest.mark.parametrize("text", ["a", "1-", "-1", "3-1", "0-99999", "4096", "1;2", "0-4/2", "٣"])
def test_refuses_what_is_no_list(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_cpu_list(text)


def test_writes_the_shortest_list() -> None:
    assert format_cpu_list([5, 0, 2, 1]) == "0-2,5"
