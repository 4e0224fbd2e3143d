"""Addresses of a nat network: steady, apart, and never the host's."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carmel.errors import Refused
from carmel.network.host.check import reserved_addresses
from carmel.network.host.pool import choose_address

_SMALL = IPv4Network("10.0.0.0/29")


@settings(max_examples=60, deadline=None)
@given(st.integers(16, 29), st.lists(st.integers(0, 2**24), max_size=5, unique=True))
def test_each_nic_has_one_of_its_own(prefix: int, tails: list[int]) -> None:
    subnet, taken = IPv4Network((0x0A000000, prefix)), set[IPv4Address]()
    for tail in tails:
        address = choose_address(subnet, f"52:54:00:{tail:06x}", taken)
        assert address in subnet
        assert address not in {*taken, *reserved_addresses(subnet)}
        taken.add(address)


def test_it_is_the_same_again_and_the_one_before_if_it_still_fits() -> None:
    first = choose_address(_SMALL, "52:54:00:00:00:01", ())
    assert choose_address(_SMALL, "52:54:00:00:00:01", ()) == first
    before = next(one for one in _SMALL.hosts() if one not in {first, _SMALL[1]})
    assert choose_address(_SMALL, "52:54:00:00:00:01", (), before) == before
    assert choose_address(_SMALL, "52:54:00:00:00:01", {before}, before) == first
    assert choose_address(_SMALL, "52:54:00:00:00:01", (), _SMALL[1]) == first
    assert choose_address(_SMALL, "52:54:00:00:00:01", (), IPv4Address("10.9.9.9")) == first


def test_a_full_subnet_says_so() -> None:
    taken: set[IPv4Address] = set()
    for number in range(5):
        taken.add(choose_address(_SMALL, f"52:54:00:00:00:{number:02x}", taken))
    with pytest.raises(Refused, match=r"all 5 addresses of 10\.0\.0\.0/29 are in use"):
        choose_address(_SMALL, "52:54:00:00:00:99", taken)
