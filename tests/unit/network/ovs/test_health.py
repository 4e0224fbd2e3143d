"""Lookups of the datapath, when it is deaf, and offload, as pure code."""

from __future__ import annotations

import pytest

from carmel.network.ovs.health import Lookups, is_deaf, read_lookups
from carmel.network.ovs.offload import is_on, offload_config

_SHOWN = """system@ovs-system:
  lookups: hit:17 missed:4 lost:1
  flows: 3
  masks: hit:20 total:2 hit/pkt:0.95
  port 0: ovs-system (internal)
"""


def test_lookups_of_all_datapaths_are_added() -> None:
    assert read_lookups(_SHOWN) == Lookups(17, 4, 1)
    assert read_lookups(f"{_SHOWN}netdev@ovs-netdev:\n  lookups: hit:3 missed:2 lost:1\n") == Lookups(20, 6, 2)
    assert read_lookups("") is None


@pytest.mark.parametrize(
    ("now", "deaf"),
    [
        (Lookups(17, 4, 1), False),  # nothing came
        (Lookups(17, 9, 6), True),  # all that came was lost
        (Lookups(17, 9, 5), False),  # one was taken
        (Lookups(18, 9, 6), False),  # what is known passes: too much load
        (Lookups(17, 9, 1), False),
    ],
)
def test_deaf_is_who_loses_all_that_comes(now: Lookups, deaf: bool) -> None:
    assert is_deaf(Lookups(17, 4, 1), now) is deaf


def test_offload_is_switched_on_where_the_nic_can_and_left_alone_elsewhere() -> None:
    assert offload_config({}, able=True) == {"hw-offload": "true", "tc-policy": "none"}
    assert offload_config({"hw-offload": "true", "tc-policy": "skip_sw"}, able=True) == {}
    assert offload_config({"hw-offload": "false"}, able=False) == {}
    assert is_on({"hw-offload": "true"}, able=True)
    assert not is_on({"hw-offload": "true"}, able=False)
    assert not is_on({}, able=True)
