"""What is missing, torn, lying or endless gives a machine and a sentence; only where nothing is, an error."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carmel.errors import CarmelError
from carmel.hardware.cpus import NothingToRead
from carmel.hardware.model import Hardware
from carmel.hardware.reader import read_hardware
from carmel.hardware.status import hardware_status
from carmel.hardware.sysroot import MOST_REMARKS, Sysroot
from tests.unit.hardware.machines import GIB, Tree, raspberry_pi_4, server, xavier

_CPU = "sys/devices/system/cpu"
_NODE = "sys/devices/system/node"
_HERE = settings(max_examples=30, deadline=None)


def check(found: Hardware) -> Hardware:
    """What everybody may rely on, whatever the files say."""
    cpus = [cpu.id for cpu in found.cpus]
    nodes = [node.id for node in found.nodes]
    assert cpus
    assert cpus == sorted(set(cpus))
    assert sorted(cpu for node in found.nodes for cpu in node.cpus) == cpus
    for groups in (found.sockets, found.cores):
        assert sorted(cpu for group in groups for cpu in group.cpus) == cpus
    assert sorted(cpu for kind in found.cpu_kinds for cpu in kind.cpus) == cpus
    groups_and_caches = [one.cpus for one in (*found.clusters, *found.dies)] + [one.cpus for one in found.caches]
    for members in groups_and_caches:
        assert set(members) <= set(cpus)
        assert members == tuple(sorted(members))
    sockets = {one.id: set(one.cpus) for one in found.sockets}
    for core in found.cores:
        assert set(core.cpus) <= sockets[core.socket]
    homes = {cpu: node.id for node in found.nodes for cpu in node.cpus}
    for cpu in found.cpus:
        assert cpu.id in sockets[cpu.socket]
        assert cpu.node == homes[cpu.id]
        assert cpu.id in found.cpu_kinds[cpu.kind].cpus
    for node in found.nodes:
        assert list(node.distances) == nodes
        assert node.distances[node.id] == 10
        assert all(10 <= distance <= 255 for distance in node.distances.values())
        assert 0 <= (node.free_memory_bytes or 0) <= node.memory_bytes < 1 << 57
        assert all(0 <= pool.free <= pool.total for pool in node.huge_pages)
    assert not set(found.offline_cpus) & set(cpus)
    assert len(found.remarks) <= MOST_REMARKS + 1
    assert all(remark.isprintable() and remark.endswith(".") for remark in found.remarks)
    hardware_status(found)
    return found


def test_nothing_to_read(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "missing", tmp_path / "sys"):
        with pytest.raises(NothingToRead, match="Nothing here says what CPUs") as caught:
            read_hardware(root)
        assert caught.value.hint


def test_cpuinfo_alone_is_a_machine(tmp_path: Path) -> None:
    Tree(tmp_path).write("proc/cpuinfo", "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd08\n")
    found = check(read_hardware(tmp_path))
    assert found.cpu_kinds[0].name == "Cortex-A72"
    assert f"/{_CPU}/online says nothing: CPUs 0 were taken to be online." in found.remarks


@pytest.fixture(scope="module", params=[server, raspberry_pi_4, xavier], ids=lambda make: make.__name__)
def machine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """Built once: each example puts back what it changed."""
    tree: Tree = request.param(tmp_path_factory.mktemp("machine"))
    tree.nvme(0, "0000:01:00.0", 0)
    tree.nic("enp1s0", "0000:02:00.0", 0, 8)
    return tree


def some(tree: Tree, data: st.DataObject, most: int = 8) -> list[str]:
    return data.draw(st.lists(st.sampled_from(tree.files()), min_size=1, max_size=most, unique=True))


@given(data=st.data())
@_HERE
def test_missing_files_anywhere(machine: Tree, data: st.DataObject) -> None:
    paths = some(machine, data, 16)
    with machine.kept(paths):
        for path in paths:
            machine.remove(path)
        check(read_hardware(machine.root))


_LIES = st.one_of(
    st.sampled_from(
        [
            b"",
            b"-1",
            b"0",
            b"1",
            b"0-3",
            b"0-99999",
            b"3-1",
            b"0-4095",
            b"10 20 30",
            b"5 5",
            b"999999999999999999999",
            b"\xff\xfe\x00\x00",
            b"x" * 10_000,
            b"0x",
            b"Node 0 MemTotal: 99999999999999999 kB",
            b"Node 0 MemTotal: -5 kB",
            b"\x1b[2J",
        ]
    ),
    st.binary(max_size=64),
    st.integers(-(2**70), 2**70).map(lambda number: str(number).encode()),
)


@given(data=st.data())
@_HERE
def test_lies_anywhere(machine: Tree, data: st.DataObject) -> None:
    paths = [path for path in some(machine, data) if not (machine.root / path).is_symlink()]
    with machine.kept(paths):
        for path in paths:
            machine.write(path, data.draw(_LIES))
        check(read_hardware(machine.root))


@given(data=st.data())
@_HERE
def test_links_that_lead_in_circles_or_away(machine: Tree, data: st.DataObject) -> None:
    targets = st.sampled_from([".", "..", "/", "self", "../../../../../../../../..", "/sys", "/etc/passwd", "missing"])
    paths = some(machine, data)
    with machine.kept(paths):
        for path in paths:
            machine.remove(path)
            machine.link(path, data.draw(targets))
        check(read_hardware(machine.root))


@pytest.mark.parametrize("after", range(0, 56, 5))
def test_cpus_that_vanish_between_two_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The folder of CPU 3 goes after so many reads. Whenever that is, a machine comes out."""
    tree = server(tmp_path, sockets=1)
    reads = 0
    real = Sysroot.data

    def vanishing(self: Sysroot, path: str, limit: int = 4096) -> bytes | None:
        nonlocal reads
        if reads == after:
            tree.remove(f"{_CPU}/cpu3")
        reads += 1
        return real(self, path, limit)

    monkeypatch.setattr(Sysroot, "data", vanishing)
    check(read_hardware(tree.root))
    assert reads > after


def test_a_cpu_that_is_gone_is_offline(tmp_path: Path) -> None:
    tree = server(tmp_path)
    tree.remove(f"{_CPU}/cpu5")
    found = check(read_hardware(tree.root))
    assert found.offline_cpus == (5,)
    assert found.remarks == ("CPUs 5 are said to be online but were not found: taken as offline.",)


def test_a_core_in_two_sockets(tmp_path: Path) -> None:
    tree = server(tmp_path)
    for cpu in (3, 4):
        tree.write(f"{_CPU}/cpu{cpu}/topology/core_cpus_list", "3-4\n")
    found = check(read_hardware(tree.root))
    assert [core.cpus for core in found.cores] == [(cpu,) for cpu in range(8)]
    (remark,) = found.remarks
    assert remark.startswith("What is said of the cores of CPUs 3-4 contradicts itself or crosses sockets: ")


def test_threads_that_deny_each_other(tmp_path: Path) -> None:
    tree = server(tmp_path, sockets=1, cores=2, threads=2)
    tree.write(f"{_CPU}/cpu1/topology/core_cpus_list", "1\n")
    found = check(read_hardware(tree.root))
    assert [core.cpus for core in found.cores] == [(0,), (1,), (2, 3)]
    assert "cores of CPUs 0 " in found.remarks[0]


def test_caches_that_overlap(tmp_path: Path) -> None:
    tree = server(tmp_path, sockets=1, caches=False)
    for cpu, shared in enumerate(("0-1", "0-1", "1-3", "7")):
        tree.cache(cpu, 2, 2, "Unified", "1M", shared)
    found = check(read_hardware(tree.root))
    assert [cache.cpus for cache in found.caches] == [(0, 1)]
    assert "who shares the L2 unified caches of CPUs 2-3 contradicts itself" in found.remarks[0]


def test_nodes_that_overlap(tmp_path: Path) -> None:
    tree = server(tmp_path)
    tree.write(f"{_NODE}/node1/cpulist", "2-7\n")
    found = check(read_hardware(tree.root))
    assert [node.cpus for node in found.nodes] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert found.remarks == ("CPUs 2-3 are said to be in several NUMA nodes: taken to be in the lowest.",)


def test_a_cpu_in_no_node_goes_to_its_sockets(tmp_path: Path) -> None:
    tree = server(tmp_path)
    tree.write(f"{_NODE}/node1/cpulist", "4-6\n")
    found = check(read_hardware(tree.root))
    assert found.nodes[1].cpus == (4, 5, 6, 7)
    assert found.remarks == ("CPUs 7 are in no NUMA node: taken to be in 1, by their socket.",)


@pytest.mark.parametrize(
    ("row", "taken", "said"),
    [
        ("10", {0: 10, 1: 20}, "holds 1 distances for 2 nodes: 10 and 20 were taken"),
        ("10 20 30", {0: 10, 1: 20}, "holds 3 distances for 2 nodes"),
        ("", {0: 10, 1: 20}, "says nothing: 10 and 20 were taken"),
        ("10 9", {0: 10, 1: 20}, "from NUMA node 0 to 1 is said to be 9: taken as 20"),
        ("10 -20", {0: 10, 1: 20}, "is said to be -20"),
        ("10 256", {0: 10, 1: 20}, "is said to be 256"),
        ("10 far", {0: 10, 1: 20}, "is said to be no number"),
        ("20 32", {0: 10, 1: 32}, "from NUMA node 0 to 0 is said to be 20: taken as 10"),
        ("10 10", {0: 10, 1: 10}, None),
        ("10 255", {0: 10, 1: 255}, None),
    ],
)
def test_distances(tmp_path: Path, row: str, taken: dict[int, int], said: str | None) -> None:
    tree = server(tmp_path)
    tree.write(f"{_NODE}/node0/distance", f"{row}\n")
    found = check(read_hardware(tree.root))
    assert found.nodes[0].distances == taken
    assert [said in remark for remark in found.remarks] == [True] if said else found.remarks == ()


def test_a_node_that_is_offline(tmp_path: Path) -> None:
    tree = server(tmp_path)
    tree.write(f"{_NODE}/online", "0\n")
    tree.write(f"{_NODE}/node0/distance", "10\n")
    found = check(read_hardware(tree.root))
    assert [node.id for node in found.nodes] == [0]
    assert found.nodes[0].cpus == tuple(range(8))
    assert found.remarks == (
        "NUMA nodes 1 are offline: what is on them is not used.",
        "CPUs 4-7 are in no NUMA node: taken to be in 0, by their socket.",
    )


def test_a_node_that_was_said_to_be_online(tmp_path: Path) -> None:
    tree = server(tmp_path)
    tree.write(f"{_NODE}/online", "0-2\n")
    assert check(read_hardware(tree.root)).remarks == ("NUMA nodes 2 are said to be online but were not found.",)


@pytest.mark.parametrize("memory", ["0 kB", "-1 kB", "99999999999999999999 kB", "999999999999999 kB", "lots"])
def test_memory_that_cannot_be(tmp_path: Path, memory: str) -> None:
    tree = server(tmp_path)
    tree.write(f"{_NODE}/node1/meminfo", f"Node 1 MemTotal: {memory}\n")
    found = check(read_hardware(tree.root))
    assert [node.memory_bytes for node in found.nodes] == [16 * GIB, 0]
    assert bool(found.remarks) == (memory != "0 kB")
    assert all("NUMA node 1 says nothing of its memory that can be" in remark for remark in found.remarks)


def test_no_memory_at_all(tmp_path: Path) -> None:
    found = check(read_hardware(server(tmp_path, memory=0).root))
    assert found.memory_bytes == 0
    assert found.remarks == ("No NUMA node has memory by what they say: no VM can be placed.",)


def test_sockets_of_many_numbers(tmp_path: Path) -> None:
    tree = server(tmp_path)
    for cpu, number in enumerate((-1, 0, 4294967295, 99999, "x", 2**64, 7, 8442)):
        tree.write(f"{_CPU}/cpu{cpu}/topology/physical_package_id", f"{number}\n")
    found = check(read_hardware(tree.root))
    assert [one.id for one in found.sockets] == [0, 99999, 7, 8442]
    assert "Nothing says in which socket CPUs 0,2,4-5 are: taken to be in socket 0." in found.remarks


def test_more_cpus_than_there_can_be(tmp_path: Path) -> None:
    tree = server(tmp_path)
    tree.write(f"{_CPU}/online", "0-4000000000\n")
    tree.write(f"{_CPU}/cpu99999/topology/core_id", "1\n")
    found = check(read_hardware(tree.root))
    assert len(found.cpus) == 8
    assert any(remark.startswith(f"/{_CPU}/online is no list of numbers") for remark in found.remarks)


@pytest.mark.timeout(60)
def test_a_thousand_cpus_are_read_in_a_second(tmp_path: Path) -> None:
    """By the processor's time, so that what else runs here does not count; three tries."""
    tree = server(tmp_path, sockets=2, nodes=4, cores=512, cluster=4)
    spent = []
    for _ in range(3):
        before = time.process_time()
        found = read_hardware(tree.root)
        spent.append(time.process_time() - before)
    assert len(check(found).cpus) == 1024
    assert found.remarks == ()
    assert min(spent) < 1.0


def test_a_thousand_lying_cpus(tmp_path: Path) -> None:
    """Each lie is of its own sort: they are counted, not listed."""
    tree = server(tmp_path, sockets=2, nodes=2, cores=512, caches=False)
    chance = random.Random(7)
    for cpu in range(1024):
        tree.write(f"{_CPU}/cpu{cpu}/topology/core_cpus_list", f"{chance.randrange(1024)}\n")
        tree.write(f"{_CPU}/cpu{cpu}/topology/physical_package_id", f"{chance.randrange(-9, 9)}!\n")
    found = check(read_hardware(tree.root))
    assert len(found.cpus) == 1024
    assert found.remarks[-1].endswith("more remarks of this sort were left out.")


@pytest.mark.parametrize(
    "path", ["proc/cpuinfo", "proc/meminfo", "proc/mounts", f"{_CPU}/online", f"{_NODE}/node0/cpulist"]
)
def test_pipes_and_folders_where_files_should_be(tmp_path: Path, path: str) -> None:
    tree = server(tmp_path)
    place = tree.root / path
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    check(read_hardware(tree.root))
    place.unlink()
    place.mkdir()
    check(read_hardware(tree.root))


def test_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some files are root's (serial numbers, ACPI tables), and any may fail with an I/O error."""
    tree = server(tmp_path)
    real = os.read

    def failing(handle: int, size: int) -> bytes:
        if Path(f"/proc/self/fd/{handle}").readlink().name in {"meminfo", "APIC", "die_id"}:
            raise PermissionError
        return real(handle, size)

    monkeypatch.setattr(os, "read", failing)
    found = check(read_hardware(tree.root))
    assert found.memory_bytes == 0
    assert found.kvm.gic_version is None


def test_the_error_is_one_of_ours(tmp_path: Path) -> None:
    with pytest.raises(CarmelError) as caught:
        read_hardware(tmp_path)
    assert caught.value.to_dict()["retryable"] is False
