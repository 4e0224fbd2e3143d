"""Among the places that are possible, the right one, and the reasons said."""

from __future__ import annotations

from pathlib import Path

import pytest

from carmel.hardware.boards import synthetic
from carmel.hardware.model import Hardware
from carmel.hardware.reader import read_hardware
from carmel.placement.defaults import default_rules
from carmel.placement.model import GuestTopology, Placement, Rules
from carmel.placement.moving import same_shape
from carmel.placement.occupancy import Occupancy
from carmel.placement.silicon import survey
from carmel.units import GIB, MIB
from tests.unit.hardware.recorded import SERVER, unpack
from tests.unit.placement.machines import DEDICATED, NodeShape, filled, machine, placed, refused, request, wishes


def empty(hardware: Hardware, rules: Rules | None = None) -> Occupancy:
    return Occupancy.of(survey(hardware, rules or Rules()))


def two_nodes(**shape: object) -> Occupancy:
    return empty(machine(*(NodeShape(**shape) for _ in range(2))))  # type: ignore[arg-type]


def test_two_shared_vms_land_on_two_nodes_and_say_why() -> None:
    occupancy = filled(two_nodes(), request("one", 2))
    second = placed(occupancy, request("two", 2))
    assert occupancy.placements["one"].memory_nodes == (0,)
    assert second.memory_nodes == (1,)
    assert second.vcpus == ((4, 5, 6, 7),) * 2
    assert second.reasons[0] == "Node 1 holds all of it, and is the least busy that does."
    assert second.next_best == "Node 0: it would be 100% full, this is 50%."


def test_dedicated_vms_leave_the_larger_hole_to_larger_vms() -> None:
    occupancy = filled(two_nodes(), request("one", 1, policy=DEDICATED), request("two", 1, policy=DEDICATED))
    assert [one.memory_nodes for one in occupancy.placements.values()] == [(0,), (0,)]
    assert [one.vcpus for one in occupancy.placements.values()] == [((0,),), ((1,),)]
    assert "others would do as well" in occupancy.placements["one"].reasons[0]
    assert "fits tightest" in occupancy.placements["two"].reasons[0]
    assert placed(occupancy, request("wide", 4, policy=DEDICATED)).memory_nodes == (1,)


def test_shared_vms_give_way_to_dedicated_ones_and_get_the_cpus_back() -> None:
    occupancy = filled(two_nodes(), request("floats", 2), request("own", 2, policy=DEDICATED, near=frozenset({0})))
    own, floats = occupancy.current("own"), occupancy.current("floats")
    assert own.vcpus == ((0,), (1,))
    assert floats.vcpus == ((2, 3),) * 2
    assert own.emulator_cpus == (2, 3)
    assert occupancy.minus("own").current("floats").vcpus == ((0, 1, 2, 3),) * 2


def test_dedicated_cpus_are_not_taken_from_shared_vms_that_need_them() -> None:
    hardware = machine(NodeShape(cores=4))
    occupancy = filled(empty(hardware, Rules(cpu_overcommit=2)), request("floats", 5))
    refusal = refused(occupancy, request("own", 2, policy=DEDICATED))
    assert refusal.code == "InsufficientCPUs"
    assert "1 can be had" in refusal.message
    assert not refusal.permanent
    assert placed(occupancy, request("own", 1, policy=DEDICATED)).vcpus == ((0,),)


def test_whole_clusters_and_none_that_another_vm_is_in() -> None:
    occupancy = empty(machine(NodeShape(cores=12, cluster=4)))
    occupancy = filled(occupancy, request("small", 1, policy=DEDICATED))
    assert occupancy.placements["small"].vcpus == ((0,),)
    whole = placed(occupancy, request("whole", 8, policy=DEDICATED))
    assert [cpu for (cpu,) in whole.vcpus] == list(range(4, 12))
    assert whole.topology == GuestTopology(1, 2, 4, 1)
    assert any("2 whole clusters" in reason for reason in whole.reasons)
    occupancy = filled(occupancy, request("other", 2, policy=DEDICATED))
    assert occupancy.placements["other"].vcpus == ((4,), (5,)), "not beside the small one"
    occupancy = filled(occupancy, request("third", 3, policy=DEDICATED), request("last", 3, policy=DEDICATED))
    assert [cpu for (cpu,) in occupancy.placements["last"].vcpus] == [1, 2, 3], "no other choice was left"


def test_whole_clusters_decide_between_nodes_and_small_vms_fill_up() -> None:
    hardware = machine(NodeShape(cores=8, cluster=4), NodeShape(cores=12, cluster=4))
    occupancy = filled(empty(hardware), *(request(name, 2, policy=DEDICATED) for name in ("first", "second")))
    assert [one.vcpus for one in occupancy.placements.values()] == [((0,), (1,)), ((4,), (5,))]
    cluster = placed(occupancy, request("cluster", 4, policy=DEDICATED))
    assert [cpu for (cpu,) in cluster.vcpus] == [8, 9, 10, 11]
    assert cluster.reasons[0] == "Node 1 holds all of it in clusters that fewer other VMs are in."
    assert cluster.next_best == "Node 0: it would be in 2 clusters with other VMs, here in 0."
    assert placed(occupancy, request("small", 1, policy=DEDICATED)).memory_nodes == (0,)


def test_threads_of_a_core_are_never_of_two_vms() -> None:
    occupancy = empty(machine(NodeShape(cores=3, threads=2)))
    occupancy = filled(occupancy, request("odd", 1, policy=DEDICATED))
    pair = placed(occupancy, request("pair", 4, policy=DEDICATED))
    assert pair.vcpus == ((1,), (4,), (2,), (5,))
    assert pair.topology == GuestTopology(1, 1, 2, 2)
    assert refused(occupancy.plus(pair), request("more", 1, policy=DEDICATED)).code == "InsufficientCPUs"
    assert pair.emulator_cpus == (1, 2, 4, 5), "nothing else is left on this host"


def test_a_wide_vm_sees_the_silicon() -> None:
    hardware = synthetic("mt-jade-altra")
    occupancy = empty(hardware)
    wide = placed(occupancy, request("wide", 160, 300 * GIB, policy=DEDICATED))
    assert [cpu for (cpu,) in wide.vcpus] == list(range(160))
    assert [(node.host_node, len(node.vcpus), node.distances) for node in wide.nodes] == [
        (0, 80, (10, 20)),
        (1, 80, (20, 10)),
    ]
    assert wide.topology == GuestTopology(2, 40, 2, 1)
    assert wide.nodes[0].memory_bytes == 150 * GIB


def test_all_256_cores_and_as_many_floating() -> None:
    occupancy = empty(synthetic("mt-jade-altra-max"))
    assert placed(occupancy, request("own", 256, 900 * GIB, policy=DEDICATED)).topology.vcpus == 256
    floating = placed(occupancy, request("floats", 256, 900 * GIB))
    assert floating.topology == GuestTopology(2, 1, 128, 1)
    assert floating.vcpus[0] == tuple(range(128))
    assert floating.vcpus[128] == tuple(range(128, 256))


def test_the_fewest_and_closest_nodes() -> None:
    occupancy = empty(synthetic("mt-jade-altra-quadrant"))
    wide = placed(occupancy, request("wide", 40, 20 * GIB, near=frozenset({6})))
    nodes = wide.memory_nodes
    assert len(nodes) == 2
    assert 6 in nodes
    assert occupancy.silicon.distance(*nodes) == 11
    assert [len(node.vcpus) for node in wide.nodes] == [20, 20]


def test_a_real_server(tmp_path: Path) -> None:
    """The recorded machine: two sockets, four nodes at four distances, clusters of four."""
    hardware = read_hardware(unpack(SERVER, tmp_path))
    occupancy = empty(hardware, default_rules(hardware))
    wide = placed(occupancy, request("wide", 128, 60 * GIB))
    assert wide.topology == GuestTopology(2, 2, 32, 1)
    assert [node.distances for node in wide.nodes] == [
        (10, 16, 32, 33),
        (16, 10, 25, 32),
        (32, 25, 10, 16),
        (33, 32, 16, 10),
    ]
    own = placed(occupancy, request("own", 16, policy=DEDICATED))
    assert [cpu for (cpu,) in own.vcpus] == list(range(4, 20)), "the first cluster has the host's own core"
    assert own.topology == GuestTopology(1, 4, 4, 1)


def test_nodes_of_a_socket_are_clusters_to_the_guest() -> None:
    wide = placed(empty(synthetic("mt-jade-altra-quadrant")), request("wide", 160, 80 * GIB))
    assert len(wide.nodes) == 8
    assert wide.topology == GuestTopology(2, 4, 20, 1)


def test_uneven_rooms_are_told_without_a_lie() -> None:
    occupancy = filled(two_nodes(), request("small", 2, policy=DEDICATED))
    wide = placed(occupancy, request("wide", 6, policy=DEDICATED))
    assert [len(node.vcpus) for node in wide.nodes] == [2, 4]
    assert wide.topology == GuestTopology(1, 1, 6, 1)


def test_near_its_device_if_it_fits_at_all() -> None:
    occupancy = filled(two_nodes(), *(request(f"busy{n}", 4, near=frozenset({1})) for n in range(3)))
    crowded = placed(occupancy, request("vm", 2, near=frozenset({1})))
    assert crowded.memory_nodes == (1,)
    assert "Devices that it is to be near are on node 1, as it is." in crowded.reasons
    assert crowded.reasons[0] == "Node 1 holds all of it, and is closer to its devices than others that do."
    assert crowded.next_best == "Node 0: 10 farther from its devices."


def test_else_on_the_nearest_and_says_so() -> None:
    hardware = machine(
        NodeShape(memory=2 * GIB), NodeShape(), NodeShape(), distances=[[10, 30, 15], [30, 10, 30], [15, 30, 10]]
    )
    away = placed(empty(hardware), request("vm", 1, 4 * GIB, near=frozenset({0})))
    assert away.memory_nodes == (2,)
    assert "Devices that it is to be near are on node 0, which has no room for it: node 2 is at distance 15." in (
        away.reasons
    )


def test_devices_of_a_node_that_is_not_there_bind_nothing() -> None:
    lost = placed(two_nodes(), request("vm", near=frozenset({5})))
    assert "Its devices on node 5 counted for nothing: the host has no such node." in lost.reasons


def test_memory_elsewhere_rather_than_nothing() -> None:
    hardware = machine(NodeShape(memory=0), NodeShape(cores=0, memory=4 * GIB))
    vm = placed(empty(hardware), request("vm", 2, 3 * GIB))
    assert vm.vcpus == ((0, 1, 2, 3),) * 2
    assert vm.memory_nodes == (1,)
    assert len(vm.nodes) == 1, "one node is what the guest should see"
    assert any("2 of its vCPUs are on another node than their memory" in reason for reason in vm.reasons)


def test_memory_goes_with_the_vcpus() -> None:
    occupancy = filled(empty(machine(NodeShape(), NodeShape(), NodeShape())), request("big", 1, 7 * GIB))
    wide = placed(occupancy, request("wide", 8, 8 * GIB))
    assert wide.memory_nodes == (1, 2)
    assert [node.memory_bytes for node in wide.nodes] == [4 * GIB, 4 * GIB]


def test_one_kind_of_cpu_the_strongest_that_serves_it_best() -> None:
    occupancy = empty(machine(NodeShape(cores=8, kinds=(1, 1, 1, 1, 0, 0, 0, 0))))
    first = placed(occupancy, request("first", 4, policy=DEDICATED))
    assert [cpu for (cpu,) in first.vcpus] == [4, 5, 6, 7]
    assert "Its CPUs are all Kind-0, the strongest kind here." in first.reasons
    second = placed(occupancy.plus(first), request("second", 4, policy=DEDICATED))
    assert [cpu for (cpu,) in second.vcpus] == [0, 1, 2, 3]
    assert refused(occupancy, request("wide", 5, policy=DEDICATED)).message == (
        "5 dedicated CPUs are wanted and 4 of one kind can be had: 1 is missing"
    )
    crowded = filled(occupancy, *(request(f"vm{n}", 4) for n in range(3)))
    cpus = [one.vcpus[0] for one in crowded.placements.values()]
    assert cpus == [(4, 5, 6, 7), (0, 1, 2, 3), (4, 5, 6, 7)], "an idle weak CPU is as good as half a strong one"


def test_more_vcpus_than_cpus_are_allowed_and_told() -> None:
    laptop = empty(machine(NodeShape(cores=2, memory=4 * GIB)))
    vm = placed(laptop, request("vm", 8))
    assert vm.topology == GuestTopology(1, 1, 8, 1)
    assert len(vm.nodes) == 1
    assert any("8 vCPUs for 2 CPUs: its own vCPUs wait for each other" in reason for reason in vm.reasons)
    assert placed(two_nodes(), request("vm", 16)).topology == GuestTopology(2, 1, 8, 1)


def test_given_guest_nodes_go_to_different_nodes_or_share_one() -> None:
    nodes = wishes((1, GIB), (1, GIB))
    apart = placed(two_nodes(), request("vm", 2, 2 * GIB, guest_nodes=nodes))
    assert [node.host_node for node in apart.nodes] == [0, 1]
    together = placed(empty(machine(NodeShape())), request("vm", 2, 2 * GIB, guest_nodes=nodes))
    assert [node.host_node for node in together.nodes] == [0, 0]
    assert [node.distances for node in together.nodes] == [(10, 20), (20, 10)]


def test_a_given_topology_is_kept() -> None:
    shape = GuestTopology(2, 1, 1, 1)
    assert placed(two_nodes(), request("vm", 2, topology=shape)).topology == shape


def test_huge_pages_come_from_their_pools_and_ordinary_memory_from_the_rest() -> None:
    page = 2 * MIB
    hardware = machine(NodeShape(memory=4 * GIB), NodeShape(memory=4 * GIB, pools={page: 1024}))
    occupancy = filled(empty(hardware), request("huge", 1, GIB, page_bytes=page))
    assert occupancy.placements["huge"].memory_nodes == (1,)
    assert any("512 huge pages of 2Mi" in reason for reason in occupancy.placements["huge"].reasons)
    assert refused(occupancy, request("more", 1, GIB + page, page_bytes=page)).code == "InsufficientHugePages"
    assert placed(occupancy, request("plain", 1, 3 * GIB)).memory_nodes == (0,), "node 1 has 2 GiB outside its pool"


def test_a_saved_vm_comes_back_with_the_guest_it_had() -> None:
    occupancy = two_nodes()
    wide = placed(occupancy, request("vm", 6, 6 * GIB, policy=DEDICATED))
    busy = filled(occupancy, request("other", 2, policy=DEDICATED, near=frozenset({0})))
    again = placed(busy, same_shape(wide))
    assert again.topology == wide.topology
    assert [(node.vcpus, node.memory_bytes) for node in again.nodes] == [
        (node.vcpus, node.memory_bytes) for node in wide.nodes
    ]
    assert any("on another node than their memory" in reason for reason in again.reasons)


@pytest.mark.parametrize("board", ["raspberry-pi-4b", "jetson-agx-xavier", "jetson-xavier-nx"])
def test_a_gicv2_bounds_a_vm(board: str) -> None:
    hardware = synthetic(board)
    refusal = refused(empty(hardware, default_rules(hardware)), request("vm", 9))
    assert refusal.code == "TooManyCPUs"
    assert refusal.permanent


def test_a_changed_machine_takes_over_what_was_placed() -> None:
    before = filled(two_nodes(), request("vm", 2, policy=DEDICATED))
    smaller = survey(machine(NodeShape(), NodeShape(cores=2)), Rules(reserved_cpus=frozenset({0})))
    after = before.on(smaller)
    assert after.taken[0].bit_count() == 2
    assert isinstance(after.current("vm"), Placement)
