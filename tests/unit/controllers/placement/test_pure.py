"""Records, rules, configurations and requests: values in, values out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from carmel.controllers.placement import Ledger, Means, make_ground, plain_hardware
from carmel.controllers.placement.applying import cpu_config, guest_nodes, held_at, pinning_of
from carmel.controllers.placement.hotplug import FUNCTIONS, SILICON, concerns
from carmel.controllers.placement.recorded import Recorded, from_json, to_json
from carmel.controllers.placement.requests import restore_request, start_request
from carmel.controllers.placement.words import move_sentence, placed_sentence, refusal_sentence
from carmel.errors import Refused
from carmel.hardware.model import Hardware
from carmel.hypervisor.config import GuestNodeConfig, Pinning
from carmel.placement.model import Move, Placement, Refusal, Request
from carmel.resources.base import ObjectMeta
from carmel.resources.host import HostPlacementSpec
from carmel.resources.virtualmachine import Cpu, CpuPolicy, VirtualMachine, VirtualMachineSpec
from carmel.units import GIB, MIB
from tests.unit.controllers.placement.machines import ground, request, two_nodes

ONE_NODE = plain_hardware("aarch64", 4096, 4, 8 * GIB)


def placed(wanted: Request, hardware: Hardware | None = None, **spec: Any) -> Placement:
    outcome = Ledger(ground(hardware, **spec)).reserve(wanted)
    assert isinstance(outcome, Placement)
    return outcome


def vm(**spec: Any) -> VirtualMachine:
    return VirtualMachine(
        metadata=ObjectMeta(name="w", namespace="default", uid="u"), spec=VirtualMachineSpec.model_validate(spec)
    )


class TestRecorded:
    def test_round_trip(self) -> None:
        wide = placed(request("w", 6, 12 * GIB, policy=CpuPolicy.DEDICATED, near=frozenset({1})))
        for one in (Recorded(wide), Recorded(wide, moving=placed(request("w")))):
            assert from_json(to_json(one)) == one

    @pytest.mark.parametrize("data", [None, 7, [], {}, {"placement": {}}, {"placement": {"vcpus": "x"}}])
    def test_what_is_no_record_counts_as_none(self, data: object) -> None:
        assert from_json(data) is None

    def test_after_an_interrupted_move_the_machine_says_where_it_is(self) -> None:
        here = placed(request("w"))
        there = placed(request("w"), reservedCpus="0-3")
        assert (here.memory_nodes, there.memory_nodes) == ((0,), (1,))
        recorded = Recorded(here, moving=there)
        assert recorded.settled(held_at(here)) == here
        assert recorded.settled(held_at(there)) == there
        # Neighbours may have taken some of its CPUs since.
        assert recorded.settled(replace(held_at(there), vcpus=((4,), (4,)))) == there
        assert recorded.settled(None) == here
        assert Recorded(here).settled(held_at(there)) == here

    def test_within_one_node_its_cpus_say_it(self) -> None:
        here, there = (
            placed(request("w", policy=CpuPolicy.DEDICATED), reservedCpus=kept) for kept in ("2-7", "0-1,4-7")
        )
        assert here.memory_nodes == there.memory_nodes
        assert Recorded(here, moving=there).settled(held_at(there)) == there


class TestRules:
    def test_the_administrators_word_counts(self) -> None:
        made = ground(reservedCpus="0,4", reservedMemory="2Gi", cpuOvercommit=2)
        assert made.rules.reserved_cpus == {0, 4}
        assert sum(made.rules.reserved_memory.values()) == 2 * GIB
        assert made.rules.cpu_overcommit == 2
        assert made.problems == ()

    def test_cpus_that_do_not_exist(self) -> None:
        made = ground(reservedCpus="0,8-9")
        assert made.rules.reserved_cpus == {0}
        assert made.problems == (
            "spec.placement.reservedCpus: 8-9 are no CPUs of this machine, or not online: left out",
        )

    def test_everything_reserved(self) -> None:
        made = ground(reservedCpus="0-7", reservedMemory="16Gi")
        assert len(made.problems) == 2
        assert "leaves no CPU for VMs" in made.problems[0]
        assert "leaves nothing for VMs of the 16 GiB" in made.problems[1]
        assert isinstance(Ledger(made).reserve(request("w")), Placement)

    def test_in_a_container_vms_have_what_it_has(self) -> None:
        made = ground(means=Means(cpus=frozenset(range(2, 6))), reservedCpus="2")
        assert made.rules.reserved_cpus == {0, 1, 2, 6, 7}
        assert ground(means=Means(cpus=frozenset({3})), reservedCpus="3").rules.reserved_cpus == set(range(8)) - {3}
        one_node = ground(means=Means(cpus=frozenset(range(8)), nodes=frozenset({1})))
        assert one_node.rules.reserved_cpus == {0, 1, 2, 3}
        assert isinstance(Ledger(one_node).reserve(request("w", memory_bytes=9 * GIB)), Refusal)
        # What it says of CPUs that are not there says nothing.
        assert ground(means=Means(cpus=frozenset({99}))).rules.reserved_cpus == frozenset()

    @pytest.mark.parametrize(
        "nonsense",
        [
            replace(two_nodes(), cpus=()),
            replace(two_nodes(), nodes=()),
            replace(two_nodes(), nodes=tuple(replace(node, memory_bytes=0) for node in two_nodes().nodes)),
        ],
    )
    def test_a_machine_that_cannot_be(self, nonsense: Hardware) -> None:
        with pytest.raises(Refused, match="has no"):
            make_ground(nonsense, HostPlacementSpec(), Means(), None)


class TestApplying:
    def test_what_may_run_anywhere_is_not_pinned(self) -> None:
        made = ground(ONE_NODE)
        placement = placed(request("w"), ONE_NODE)
        assert pinning_of(placement, made) is None
        assert guest_nodes(placement, made) == ()

    @pytest.mark.parametrize(
        ("hardware", "wishes", "spec"),
        [
            (ONE_NODE, {"policy": CpuPolicy.DEDICATED}, {}),
            (ONE_NODE, {}, {"reservedCpus": "3"}),
            (two_nodes(), {}, {}),
        ],
    )
    def test_what_may_not_is(self, hardware: Hardware, wishes: dict[str, Any], spec: dict[str, Any]) -> None:
        placement = placed(request("w", **wishes), hardware, **spec)
        pinning = pinning_of(placement, ground(hardware, **spec))
        assert pinning == Pinning(
            placement.vcpus, placement.emulator_cpus, placement.memory_nodes, exclusive=bool(wishes)
        )
        assert pinning_of(placement, ground(hardware, Means(pins=False), **spec)) is None

    def test_memory_is_bound_where_there_are_nodes(self) -> None:
        placement = placed(request("w", near=frozenset({1})))
        assert guest_nodes(placement, ground()) == (GuestNodeConfig((0, 1), GIB, (10,), 1),)

    def test_guest_numa_on_a_host_without(self) -> None:
        one = vm(
            cpu={"count": 2},
            memory={"size": "1Gi"},
            numa={"nodes": [{"cpus": "0", "memory": "256Mi"}, {"cpus": "1", "memory": "768Mi"}]},
        )
        wanted, _ = start_request(one, ONE_NODE)
        assert guest_nodes(placed(wanted, ONE_NODE), ground(ONE_NODE)) == (
            GuestNodeConfig((0,), 256 * MIB, (10, 20), None),
            GuestNodeConfig((1,), 768 * MIB, (20, 10), None),
        )

    def test_a_wide_vm_has_the_shape_of_the_silicon(self) -> None:
        placement = placed(request("w", 8, 12 * GIB, policy=CpuPolicy.DEDICATED))
        nodes = guest_nodes(placement, ground())
        assert [(len(node.vcpus), node.host_node, node.distances) for node in nodes] == [
            (4, 0, (10, 20)),
            (4, 1, (20, 10)),
        ]
        config = cpu_config(Cpu(count=8, nested_virtualization=True, gic_version=3), placement)
        assert (config.count, config.sockets, config.nested, config.gic_version) == (8, 2, True, 3)
        assert config.sockets * config.clusters * config.cores * config.threads == 8


class TestRequests:
    def test_a_device_gives_its_node(self) -> None:
        wanted, impossible = start_request(vm(placement={"near": ["eth1"]}), two_nodes())
        assert (wanted.near, impossible) == (frozenset({1}), None)

    def test_a_device_that_is_not_there(self) -> None:
        _, impossible = start_request(vm(placement={"near": ["nvme7"]}), two_nodes())
        assert impossible is not None
        assert (impossible.code, impossible.permanent) == ("DeviceNotFound", True)
        assert refusal_sentence(impossible).startswith("spec.placement.near[0]: the host has no device 'nvme7'.")

    def test_a_suspended_vm_comes_back_with_the_shape_it_had(self) -> None:
        one = vm(cpu={"count": 6}, memory={"size": "12Gi"})
        wanted, _ = start_request(one, two_nodes())
        before = placed(wanted)
        assert len(before.nodes) == 2
        again = placed(restore_request(one, one.spec, before, two_nodes()))
        assert again.topology == before.topology
        assert [(n.vcpus, n.memory_bytes, n.distances) for n in again.nodes] == [
            (n.vcpus, n.memory_bytes, n.distances) for n in before.nodes
        ]
        # On a host with one node, too: both of the guest's then lie on it.
        elsewhere = placed(restore_request(one, one.spec, before, plain_hardware("aarch64", 4096, 8, 16 * GIB)))
        assert (elsewhere.topology, len(elsewhere.nodes)) == (before.topology, 2)

    def test_one_that_saw_no_numa_sees_none_again(self) -> None:
        one = vm(cpu={"count": 6}, memory={"size": "4Gi"})
        before = placed(start_request(one, plain_hardware("aarch64", 4096, 8, 16 * GIB))[0], ONE_NODE)
        again = placed(restore_request(one, one.spec, before, two_nodes()))
        assert len(again.nodes) == 1

    def test_one_of_before_there_was_placement(self) -> None:
        one = vm(cpu={"count": 6}, memory={"size": "4Gi"}, placement={"near": ["gone"]})
        again = restore_request(one, one.spec, None, two_nodes())
        assert again.topology is not None
        assert (again.topology.sockets, again.topology.cores, len(again.guest_nodes)) == (1, 6, 1)


def test_sentences() -> None:
    here = placed(request("w", policy=CpuPolicy.DEDICATED))
    there = placed(request("w", policy=CpuPolicy.DEDICATED), reservedCpus="0-3")
    assert placed_sentence("pi", here) == "on host pi, NUMA node 0, dedicated CPUs 0-1"
    said = move_sentence(Move(here, there, GIB, "It makes room for x."))
    assert said == "NUMA node 0 to NUMA node 1, 1 GiB of memory. It makes room for x."
    assert refusal_sentence(Refusal("X", "node 1 has 1 GiB.", "ask for less")) == "node 1 has 1 GiB. Ask for less."
    assert refusal_sentence(Refusal("X", "node 1 has 1 GiB")) == "node 1 has 1 GiB"


@pytest.mark.parametrize(
    ("event", "port", "expected"),
    [
        (b"offline@/devices/system/cpu/cpu3\0ACTION=offline\0SUBSYSTEM=cpu\0", 0, True),
        (b"online@/devices/system/memory/memory40\0SUBSYSTEM=memory\0", 0, True),
        (b"add@/devices/virtual/net/tap0\0SUBSYSTEM=net\0", 0, False),
        # Not the kernel's: anybody may write that.
        (b"offline@/devices/system/cpu/cpu3\0SUBSYSTEM=cpu\0", 4711, False),
        (b"\xff\xff", 0, False),
    ],
)
def test_kernel_events(event: bytes, port: int, expected: bool) -> None:
    assert concerns(event, (port, 1), SILICON) is expected


def test_pci_events_are_others() -> None:
    event = b"bind@/devices/pci0000:00/0000:00:02.0\0ACTION=bind\0SUBSYSTEM=pci\0"
    assert concerns(event, (0, 1), FUNCTIONS)
    assert not concerns(event, (0, 1), SILICON)
