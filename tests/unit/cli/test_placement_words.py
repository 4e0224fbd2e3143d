from __future__ import annotations

import pytest

from carmel.cli.placement_words import cpus_in_words, nodes_in_words, placement_lines, vcpu_map


def placed(policy: str, *cpus: str) -> dict[str, object]:
    return {"policy": policy, "vcpus": [{"id": id_, "hostCpus": one} for id_, one in enumerate(cpus)]}


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        (placed("Dedicated", "4", "5", "6"), ["0-2 on CPUs 4-6, one each"]),
        (placed("Dedicated", "4", "5", "9", "3"), ["0-1 on CPUs 4-5, one each", "2 on CPU 9", "3 on CPU 3"]),
        (placed("Shared", "0-3", "0-3"), ["0-1 float over CPUs 0-3"]),
        (placed("Shared", "0-3", "4-7"), ["0 floats over CPUs 0-3", "1 floats over CPUs 4-7"]),
        (placed("Shared", "0", "0", "1"), ["0-1 float over CPU 0", "2 floats over CPU 1"]),
        (placed("Shared", "nonsense"), []),
        ({}, []),
    ],
)
def test_vcpus_are_told_in_runs(placement: dict[str, object], words: list[str]) -> None:
    assert list(vcpu_map(placement)) == words


def test_lists_are_short_and_what_is_none_is_told_as_it_is() -> None:
    assert cpus_in_words(placed("Shared", "0-3", "2-5")) == "0-5"
    assert cpus_in_words(placed("Shared", "\x1b[31m")) == "?[31m"
    assert nodes_in_words({"memoryNodes": [0, 2]}) == "0,2"


def test_a_guest_with_numa_is_told_node_by_node() -> None:
    told = {
        **placed("Dedicated", "0", "8"),
        "memoryNodes": [0, 1],
        "pageSizeBytes": 2**30,
        "guestNodes": [
            {"id": 0, "vcpus": "0", "memoryBytes": 2**30, "hostNode": 0},
            {"id": 1, "vcpus": "1", "memoryBytes": 2**31, "hostNode": 1},
        ],
        "reasons": ["one", "two"],
        "nextBest": "none",
    }
    facts = list(placement_lines(told))
    assert ("Guest node", "1: vCPUs 1, 2 GiB, on the host's node 1") in facts
    assert ("Pages", "1 GiB") in facts
    assert facts[-3:] == [("Why here", "one"), ("Why here", "two"), ("Next best", "none")]
