"""Synthetic machines: whole, free of contradictions, and as their board's facts say."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carmel.errors import Invalid, NotFound
from carmel.hardware.boards import catalogue, find_board, synthetic
from carmel.hardware.model import Cache, CacheType, FirmwareInterface, Hardware
from carmel.hardware.status import hardware_status

GIB, MIB = 1 << 30, 1 << 20
IDS = list(catalogue())
each_board = pytest.mark.parametrize("board_id", IDS)


def shared(caches: tuple[Cache, ...], level: int, kind: CacheType = CacheType.UNIFIED) -> set[tuple[int, ...]]:
    return {cache.cpus for cache in caches if cache.level == level and cache.type is kind}


@each_board
def test_each_cpu_is_in_one_of_each(board_id: str) -> None:
    machine = synthetic(board_id)
    ids = [cpu.id for cpu in machine.cpus]
    assert ids == list(range(len(ids)))
    for groups in (machine.sockets, machine.cores):
        assert sorted(cpu for group in groups for cpu in group.cpus) == ids
    assert sorted(cpu for node in machine.nodes for cpu in node.cpus) == ids
    assert sorted(cpu for kind in machine.cpu_kinds for cpu in kind.cpus) == ids
    assert max(Counter(cpu for group in machine.clusters for cpu in group.cpus).values(), default=1) == 1


@each_board
def test_a_cpu_and_the_groups_that_it_is_in_agree(board_id: str) -> None:
    machine = synthetic(board_id)
    sockets = {group.id: set(group.cpus) for group in machine.sockets}
    nodes = {node.id: set(node.cpus) for node in machine.nodes}
    clusters = {(group.socket, group.id): set(group.cpus) for group in machine.clusters}
    cores = {(group.socket, group.id): set(group.cpus) for group in machine.cores}
    for cpu in machine.cpus:
        assert cpu.id in sockets[cpu.socket]
        assert cpu.id in nodes[cpu.node]
        assert cpu.id in cores[cpu.socket, cpu.core]
        assert cpu.id in machine.cpu_kinds[cpu.kind].cpus
        assert cpu.cluster is None or cpu.id in clusters[cpu.socket, cpu.cluster]
    assert all(len({machine.cpus[one].node for one in group.cpus}) == 1 for group in machine.clusters)
    assert all(set(group.cpus) <= sockets[group.socket] for group in (*machine.clusters, *machine.cores))


@each_board
def test_counts_are_the_facts(board_id: str) -> None:
    facts, machine = find_board(board_id), synthetic(board_id)
    assert facts.sockets.value in {None, len(machine.sockets)}
    assert facts.nodes in {None, len(machine.nodes)}
    assert machine.kvm.gic_version == facts.gic_version.value
    if facts.cores_per_socket is not None:
        assert len(machine.cores) == len(machine.sockets) * facts.cores_per_socket
    for kind, known in zip(machine.cpu_kinds, facts.cores, strict=False):
        midr = known.midr.value
        assert (kind.implementer, kind.part) == ((midr.implementer, midr.part) if midr else (None, None))
        if known.cluster.value not in {None, 1}:
            sizes = {len(group.cpus) for group in machine.clusters if set(group.cpus) <= set(kind.cpus)}
            assert sizes == {known.cluster.value}


@each_board
def test_memory_adds_up(board_id: str) -> None:
    machine = synthetic(board_id)
    options = find_board(board_id).memory_options.value
    assert machine.memory_bytes == (max(options) if options else len(machine.cores) * 4 * GIB)
    assert all(node.memory_bytes % machine.page_bytes == 0 for node in machine.nodes)
    assert all(node.free_memory_bytes == node.memory_bytes for node in machine.nodes)


@each_board
def test_distances_are_whole(board_id: str) -> None:
    machine = synthetic(board_id)
    known = find_board(board_id).distances.value
    for node in machine.nodes:
        assert set(node.distances) == {other.id for other in machine.nodes}
        assert node.distances[node.id] == 10
        if known is not None:
            assert tuple(node.distances.values()) == known[node.id]


@each_board
def test_huge_pages_are_offered_and_empty(board_id: str) -> None:
    machine = synthetic(board_id)
    sizes = {4096: 4, 16384: 3, 65536: 3}[machine.page_bytes] if machine.architecture == "aarch64" else 2
    assert len(machine.huge_pages) == sizes
    for pools in (machine.huge_pages, *(node.huge_pages for node in machine.nodes)):
        assert [(pool.total, pool.free) for pool in pools] == [(0, 0)] * sizes


@each_board
def test_caches_cover_their_cores_once(board_id: str) -> None:
    machine = synthetic(board_id)
    for level, kind in {(cache.level, cache.type) for cache in machine.caches}:
        members = [cpu for cpus in shared(machine.caches, level, kind) for cpu in cpus]
        assert len(members) == len(set(members)) == len(machine.cpus)


@each_board
def test_devices_are_at_nodes_that_are_there(board_id: str) -> None:
    machine = synthetic(board_id)
    nodes = {node.id for node in machine.nodes}
    addresses = [device.address for device in machine.pci]
    assert len(addresses) == len(set(addresses))
    at = [one.node for one in machine.pci] + [one.node for one in machine.nvme]
    at += [one.node for one in machine.nics] + [one.node for one in machine.accelerators]
    assert set(at) <= nodes
    for drive in machine.nvme:
        assert machine.node_of_device(drive.name) == drive.node


@each_board
def test_it_says_that_it_is_none_and_what_is_assumed(board_id: str) -> None:
    machine = synthetic(board_id)
    assert machine.remarks[0].startswith("No real machine")
    assert all(remark.endswith(".") for remark in machine.remarks)
    facts = find_board(board_id)
    assert any("pages of 4 KiB" in remark for remark in machine.remarks) == (facts.page_sizes.value is None)
    assert any("memory a core" in remark for remark in machine.remarks) == (facts.memory_options.value is None)


@each_board
def test_a_host_could_tell_of_it(board_id: str) -> None:
    told = hardware_status(synthetic(board_id))
    assert told.board.catalogue_id == board_id
    assert told.board.name == find_board(board_id).name


def test_mt_jade_in_quadrant_mode() -> None:
    machine = synthetic("mt-jade-altra-quadrant")
    assert [len(node.cpus) for node in machine.nodes] == [20] * 8
    assert machine.nodes[7].cpus == tuple(range(140, 160))
    assert machine.nodes[0].distances == {0: 10, 1: 11, 2: 11, 3: 12, 4: 20, 5: 20, 6: 21, 7: 21}
    assert {drive.node for drive in machine.nvme} == {0, 4}
    assert machine.clusters[40].cpus == (80, 81)
    assert (machine.clusters[40].id, machine.clusters[40].socket) == (0, 1)


def test_kunpeng_is_as_recorded(recorded: Hardware) -> None:
    """Nodes, clusters, caches and distances of the real machine, by CPU; its memory is its own."""
    machine = synthetic("kunpeng-920-2p")
    assert [(node.cpus, node.distances) for node in machine.nodes] == [
        (node.cpus, dict(node.distances)) for node in recorded.nodes
    ]
    assert {group.cpus for group in machine.clusters} == {group.cpus for group in recorded.clusters}
    assert {group.cpus for group in machine.sockets} == {group.cpus for group in recorded.sockets}
    for level in (2, 3):
        assert shared(machine.caches, level) == shared(recorded.caches, level)
    sizes = {(cache.level, cache.type, cache.size_bytes) for cache in recorded.caches}
    assert {(cache.level, cache.type, cache.size_bytes) for cache in machine.caches} == sizes
    assert {pool.size_bytes for pool in machine.huge_pages} == {pool.size_bytes for pool in recorded.huge_pages}


def test_xavier_has_four_pairs() -> None:
    machine = synthetic("jetson-agx-xavier")
    assert [group.cpus for group in machine.clusters] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert shared(machine.caches, 2) == {(0, 1), (2, 3), (4, 5), (6, 7)}
    assert [(one.kind, one.source) for one in machine.accelerators] == [("GPU", "/bus@0/gpu@17000000")]


def test_two_kinds_of_core_are_two_clusters() -> None:
    machine = synthetic("apple-m1")
    assert [kind.cpus for kind in machine.cpu_kinds] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert [cpu.kind for cpu in machine.cpus] == [0] * 4 + [1] * 4
    assert machine.page_bytes == 16384


def test_how_the_firmware_describes_it() -> None:
    assert synthetic("mt-jade-altra").firmware.interface is FirmwareInterface.ACPI
    assert synthetic("mt-jade-altra").firmware.uefi
    assert synthetic("jetson-agx-xavier").firmware.interface is FirmwareInterface.DEVICE_TREE


@given(
    board_id=st.sampled_from(IDS),
    memory=st.integers(GIB // 4, 1 << 42),
)
def test_any_memory_is_spread_or_refused(board_id: str, memory: int) -> None:
    largest = find_board(board_id).memory_maximum.value
    if largest is not None and memory > largest:
        with pytest.raises(Invalid):
            synthetic(board_id, memory_bytes=memory)
        return
    machine = synthetic(board_id, memory_bytes=memory)
    assert memory - machine.page_bytes < machine.memory_bytes <= memory
    parts = [node.memory_bytes for node in machine.nodes]
    assert max(parts) - min(parts) <= len(parts) * machine.page_bytes


def test_huge_pages_can_be_reserved() -> None:
    machine = synthetic("mt-jade-altra", memory_bytes=512 * GIB, huge_pages={GIB: 100, 2 * MIB: 512})
    pools = {pool.size_bytes: (pool.total, pool.free) for pool in machine.nodes[1].huge_pages}
    assert (pools[GIB], pools[2 * MIB], pools[64 << 10]) == ((100, 100), (512, 512), (0, 0))
    assert machine.nodes[1].free_memory_bytes == 256 * GIB - 101 * GIB
    assert {pool.size_bytes: (pool.total, pool.free) for pool in machine.huge_pages}[GIB] == (200, 200)


@pytest.mark.parametrize(
    ("board_id", "memory", "pages", "says"),
    [
        ("raspberry-pi-4b", 16 * GIB, {}, "at most 8 GiB"),
        ("raspberry-pi-4b", 1, {}, "too little"),
        ("raspberry-pi-4b", -GIB, {}, "too little"),
        ("raspberry-pi-4b", None, {4 * MIB: 1}, "no huge pages of 4 MiB"),
        ("apple-m1", None, {64 << 10: 1}, "no huge pages of 64 KiB"),
        ("raspberry-pi-4b", 2 * GIB, {GIB: 3}, "do not fit"),
        ("raspberry-pi-4b", 2 * GIB, {GIB: -1}, "do not fit"),
        ("mt-jade-altra", 4 * GIB, {GIB: 2, 2 * MIB: 1}, "do not fit"),
    ],
)
def test_what_cannot_be_is_refused(board_id: str, memory: int | None, pages: dict[int, int], says: str) -> None:
    with pytest.raises(Invalid, match=says) as caught:
        synthetic(board_id, memory_bytes=memory, huge_pages=pages)
    assert caught.value.hint


def test_no_such_board() -> None:
    with pytest.raises(NotFound):
        synthetic("mt-jade")
