"""What a host keeps for itself: enough on a server, little on a small board."""

from __future__ import annotations

import pytest

from carmel.hardware.boards import synthetic
from carmel.placement.defaults import default_rules
from carmel.placement.occupancy import Occupancy
from carmel.placement.silicon import survey
from carmel.units import GIB, MIB
from tests.unit.placement.machines import DEDICATED, NodeShape, machine, placed, refused, request


@pytest.mark.parametrize(
    ("memory", "kept"), [(GIB, 128 * MIB), (2 * GIB, 256 * MIB), (8 * GIB, 384 * MIB), (32 * GIB, 768 * MIB)]
)
def test_memory_of_small_boards(memory: int, kept: int) -> None:
    rules = default_rules(machine(NodeShape(memory=memory)))
    assert rules.reserved_memory == {0: kept}
    assert kept <= memory // 8


def test_memory_of_servers_comes_from_every_node() -> None:
    rules = default_rules(synthetic("mt-jade-altra"))
    assert set(rules.reserved_memory) == {0, 1}
    assert sum(rules.reserved_memory.values()) == 8 * GIB
    assert default_rules(synthetic("mt-jade-altra"), reserved_memory=3 * GIB).reserved_memory == {
        0: 1536 * MIB,
        1: 1536 * MIB,
    }


def test_huge_pages_are_not_the_hosts() -> None:
    hardware = machine(NodeShape(memory=8 * GIB, pools={2 * MIB: 3584}))
    assert default_rules(hardware).reserved_memory == {0: 128 * MIB}


def test_small_boards_keep_no_cpu_from_shared_vms_and_one_core_from_dedicated_ones() -> None:
    hardware = synthetic("raspberry-pi-4b")
    occupancy = Occupancy.of(survey(hardware, default_rules(hardware)))
    assert placed(occupancy, request("floats", 4)).vcpus[0] == (0, 1, 2, 3)
    assert [cpu for (cpu,) in placed(occupancy, request("own", 3, policy=DEDICATED)).vcpus] == [1, 2, 3]
    assert refused(occupancy, request("own", 4, policy=DEDICATED)).permanent


def test_servers_keep_a_core_of_each_socket() -> None:
    assert default_rules(synthetic("mt-jade-altra")).reserved_cpus == {0, 80}
    assert default_rules(synthetic("mt-jade-altra-quadrant")).reserved_cpus == {0, 80}
    two_threads = machine(NodeShape(cores=8, threads=2))
    assert default_rules(two_threads).reserved_cpus == {0, 8}


def test_who_says_which_cpus_are_kept_has_said_all() -> None:
    rules = default_rules(synthetic("mt-jade-altra"), reserved_cpus=())
    assert not rules.reserved_cpus
    assert not rules.shared_only_cpus


def test_the_interrupt_controller_bounds_a_vm() -> None:
    assert default_rules(synthetic("raspberry-pi-4b")).max_vcpus == 8
    assert default_rules(synthetic("mt-jade-altra")).max_vcpus == 512
    assert default_rules(synthetic("raspberry-pi-4b"), max_vcpus=16).max_vcpus == 16
