"""Requests and machines that make no sense get a sentence."""

from __future__ import annotations

from dataclasses import replace

import pytest

from carmel.hardware.model import Cpu, CpuKind, Group, Hardware, NumaNode
from carmel.placement.model import GuestNodeWish, GuestTopology, Refusal, Request, Rules
from carmel.placement.occupancy import Occupancy
from carmel.placement.placer import place
from carmel.placement.silicon import survey
from carmel.units import GIB, MIB, TIB
from tests.unit.placement.machines import DEDICATED, NodeShape, filled, machine, placed, refused, request, wishes

PAGE = 2 * MIB
TWO = machine(NodeShape(pools={PAGE: 256}), NodeShape(pools={PAGE: 0, 1 * GIB: 0}))


@pytest.mark.parametrize(
    ("wanted", "code", "words"),
    [
        (request(vcpus=0), "InvalidRequest", "0 vCPUs"),
        (request(memory=0), "InvalidRequest", "0 B of memory"),
        (request(vcpus=10_000), "TooManyCPUs", "more than the 512 that one VM can have here"),
        (request(vcpus=129), "InsufficientCPUs", "128 more may run here"),
        (request(vcpus=9, policy=DEDICATED), "InsufficientCPUs", "8 can be had: 1 is missing"),
        (request(memory=TIB), "InsufficientMemory", "1 TiB of memory are wanted and 15.5 GiB are free"),
        (
            request(memory=GIB, page_bytes=PAGE),
            "InsufficientHugePages",
            "512 huge pages are wanted of 2Mi each, and 256 are free",
        ),
        (
            request(memory=GIB, page_bytes=GIB),
            "InsufficientHugePages",
            "1 huge page is wanted of 1Gi each, and 0 are free",
        ),
        (request(memory=GIB, page_bytes=32 * MIB), "UnsupportedPageSize", "no huge pages of 32Mi"),
        (request(memory=3 * MIB, page_bytes=PAGE), "InvalidMemory", "no whole number of 2Mi"),
        (request(memory=MIB + 1), "InvalidMemory", "no whole number of 1Mi"),
        (request(vcpus=6, topology=GuestTopology(2, 1, 2, 1)), "InvalidTopology", "are 4 vCPUs, not 6"),
        (request(vcpus=2, topology=GuestTopology(-1, -1, 2, 1)), "InvalidTopology", "-1 sockets"),
        (request(vcpus=3, guest_nodes=wishes((1, GIB), (1, GIB)), memory=2 * GIB), "InvalidNUMA", "0 to 2 once"),
        (request(vcpus=2, guest_nodes=wishes((1, GIB), (1, GIB)), memory=3 * GIB), "InvalidNUMA", "adds up to 2 GiB"),
        (request(guest_nodes=(GuestNodeWish((0,), GIB, ()),)), "InvalidNUMA", "needs a distance to each"),
        (request(guest_nodes=wishes((1, 9 * GIB)), memory=9 * GIB), "InsufficientMemory", "no node has as much free"),
        (
            request(vcpus=2, guest_nodes=wishes((1, GIB), (1, 9 * GIB)), memory=10 * GIB),
            "InsufficientMemory",
            "do not fit",
        ),
    ],
)
def test_what_no_machine_could_do_is_refused_for_good(wanted: Request, code: str, words: str) -> None:
    refusal = refused(Occupancy.of(survey(TWO, Rules(max_vcpus=512))), wanted)
    assert refusal.code == code
    assert words in refusal.message
    assert refusal.hint
    assert refusal.permanent


def test_what_others_have_is_refused_for_now_with_what_would_fit() -> None:
    occupancy = filled(Occupancy.of(survey(TWO, Rules())), request("big", 2, 7 * GIB, policy=DEDICATED))
    refusal = refused(occupancy, request("vm", 2, 12 * GIB))
    assert not refusal.permanent
    assert refusal.message == (
        "12 GiB of memory are wanted and 8.5 GiB are free (node 0: 512 MiB, node 1: 8 GiB): 3.5 GiB more are missing"
    )
    assert refusal.hint.startswith("what fits here now: 96 vCPUs and 8.5 GiB")
    assert "wait until other VMs end" in refusal.hint


def test_a_host_that_cannot_dedicate_says_why() -> None:
    silicon = survey(TWO, Rules(no_dedicated="Carmel does not run as root."))
    refusal = refused(Occupancy.of(silicon), request(policy=DEDICATED))
    assert refusal.code == "DedicatedCPUsUnavailable"
    assert refusal.message == "CPUs cannot be dedicated to a VM on this host: Carmel does not run as root"
    assert refusal.permanent


def test_everything_reserved() -> None:
    rules = Rules(reserved_cpus=frozenset(range(8)), reserved_memory={0: TIB, 1: TIB})
    assert refused(Occupancy.of(survey(TWO, rules)), request()).code == "InsufficientCPUs"


def test_a_machine_of_nothing() -> None:
    nothing = Hardware("aarch64", 4096, (), (), (), ())
    assert refused(Occupancy.of(survey(nothing, Rules())), request()).code == "InsufficientCPUs"


def test_a_machine_that_contradicts_itself() -> None:
    """CPUs of nodes, kinds and cores that are not listed, groups that overlap, distances that are not there."""
    cpus = (Cpu(0, 0, 0, node=0), Cpu(1, 0, 0, node=0), Cpu(7, 3, 9, node=4, kind=5))
    node = NumaNode(0, (0, 1), 2 * GIB, distances={})
    lying = Hardware(
        "aarch64",
        4096,
        cpus,
        (node, NumaNode(2, (), GIB, {0: 5})),
        (CpuKind("One", (0, 1)),),
        (),
        clusters=(Group(0, (0, 1, 99), 0), Group(1, (1, 7), 0)),
        cores=(Group(0, (0, 1), 0), Group(0, (1,), 0)),
    )
    occupancy = Occupancy.of(survey(lying, Rules()))
    assert placed(occupancy, request("vm", 2, GIB)).memory_nodes == (0,)
    wide = placed(occupancy, request("wide", 3, 3 * GIB, policy=DEDICATED))
    assert sorted(cpu for (cpu,) in wide.vcpus) == [0, 1, 7]
    assert all(distance > 10 for node in wide.nodes for at, distance in enumerate(node.distances) if at != node.id)


def test_a_thousand_cpus() -> None:
    huge = machine(*(NodeShape(cores=128, memory=64 * GIB, cluster=4) for _ in range(8)))
    occupancy = Occupancy.of(survey(huge, Rules(max_vcpus=512)))
    wide = placed(occupancy, request("wide", 512, 100 * GIB, policy=DEDICATED))
    assert len(wide.memory_nodes) == 4
    assert refused(occupancy, request("wider", 1024)).code == "TooManyCPUs"


def test_more_guest_nodes_than_can_be_tried_get_an_answer() -> None:
    """A hard packing: its refusal says so, and comes in bounded time."""
    sizes = [(0, (101 + 7 * index) * MIB) for index in range(24)]
    total = sum(size for _, size in sizes)
    hardware = machine(*(NodeShape(memory=(total // 5 // MIB) * MIB) for _ in range(5)))
    nodes = wishes((1, sizes[0][1]), *sizes[1:])
    answer = place(
        survey(hardware, Rules()), Occupancy.of(survey(hardware, Rules())), request(memory=total, guest_nodes=nodes)
    )
    assert not isinstance(answer, Refusal) or answer.code in {"PlacementTooComplex", "InsufficientMemory"}


def test_vms_on_cpus_that_are_gone_are_still_counted_in_memory() -> None:
    before = filled(Occupancy.of(survey(TWO, Rules())), request("vm", 1, GIB, policy=DEDICATED))
    gone = replace(TWO, cpus=TWO.cpus[1:])
    after = before.on(survey(gone, Rules()))
    assert sum(after.memory.values()) == GIB
    assert after.current("vm").vcpus == before.current("vm").vcpus
