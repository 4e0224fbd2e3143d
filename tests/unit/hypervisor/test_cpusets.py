"""Cpusets in cgroups and scopes, and what a host is found able to do, on recorded and behaving trees."""

from __future__ import annotations

import dataclasses
import errno
from pathlib import Path

import pytest

from carmel.hypervisor.config import Pinning
from carmel.hypervisor.pinning import Means, abilities, cgroups, pinning_abilities, scope
from carmel.hypervisor.pinning.abilities import Hierarchy, PinningAbilities
from carmel.hypervisor.pinning.cgroups import CgroupTree
from carmel.hypervisor.pinning.cpuset import CgroupCpuset, NoCpuset, ScopeCpuset
from carmel.hypervisor.pinning.failures import CannotPin, cannot_pin
from carmel.hypervisor.pinning.pinner import Pinner
from carmel.hypervisor.pinning.scope import bits, change_command, scope_command
from carmel.paths import Paths, short_hash
from carmel.run import SystemRunner
from tests.fakes.cgroups import make_tree
from tests.fakes.cgroups_contract import check_cpusets
from tests.fakes.systemd import FakeSystemd

PLACE = Pinning(((2,), (3,)), (1,), (0, 1), exclusive=True)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "_EMPTY_SECONDS", 0.0)


def leave(cgroup: Path) -> None:
    """Its processes end."""
    Path(cgroup / "cgroup.procs").write_text("")


@pytest.mark.parametrize("version", [1, 2])
def test_contract(tmp_path: Path, version: int) -> None:
    mount = make_tree(tmp_path / "cgroup", version)

    def end() -> None:
        leave(mount / "carmel-h" / "a")

    check_cpusets(Hierarchy(mount, version), "h", (2, 3), 4711, end)


@pytest.mark.parametrize("version", [1, 2])
def test_other_houses_and_other_cgroups_are_left_alone(tmp_path: Path, version: int) -> None:
    mount = make_tree(tmp_path / "cgroup", version)
    for house in ("ours", "theirs"):
        CgroupTree(Hierarchy(mount, version), house).make("vm", PLACE)
    (mount / "machine.slice").mkdir()
    assert CgroupTree(Hierarchy(mount, version), "ours").sweep([]) == []
    assert sorted(each.name for each in mount.iterdir() if each.is_dir()) == ["carmel-theirs", "machine.slice"]


def test_what_cannot_be_swept_is_told(tmp_path: Path) -> None:
    mount = make_tree(tmp_path / "cgroup", 2)
    tree = CgroupTree(Hierarchy(mount, 2), "h")
    tree.make("vm", PLACE).place([4711])
    (problem,) = tree.sweep([])
    assert "carmel-h/vm" in problem


def test_a_cgroup_that_does_not_hand_on_is_told(tmp_path: Path) -> None:
    mount = make_tree(tmp_path / "cgroup", 2)
    (mount / "carmel-h").mkdir()
    (mount / "carmel-h" / "cgroup.procs").write_text("4711")
    with pytest.raises(CannotPin) as caught:
        CgroupTree(Hierarchy(mount, 2), "h").make("vm", PLACE)
    assert caught.value.retryable
    assert caught.value.hint


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBUSY, errno.ENOSPC, errno.EACCES, errno.EIO])
def test_the_kernels_refusals_are_sentences(number: int) -> None:
    error = cannot_pin("the CPUs 0-3", OSError(number, "Input/output error"))
    assert error.message.startswith("the CPUs 0-3 cannot be given to the VM: ")
    assert error.code == "CannotPin"
    assert "errno" not in error.message.lower()
    assert error.retryable is (number == errno.EBUSY)


def test_pinnings_cpus_are_those_of_all_threads() -> None:
    assert PLACE.cpus == (1, 2, 3)


@pytest.mark.parametrize(
    ("numbers", "expected"), [((0,), b"\x01"), ((3, 8), b"\x08\x01"), ((255,), bytes(31) + b"\x80"), ((), b"")]
)
def test_systemd_takes_sets_as_bits(numbers: tuple[int, ...], expected: bytes) -> None:
    assert bits(numbers) == expected


def test_a_scope_gets_its_cpuset_with_its_processes() -> None:
    argv = [str(word) for word in scope_command("x.scope", "a VM", [10, 11], PLACE).argv]
    at = argv.index("fail")
    assert argv[at + 1] == "5"
    assert argv[at + 2 : at + 6] == ["AllowedCPUs", "ay", "1", "14"]
    assert argv[at + 6 : at + 10] == ["AllowedMemoryNodes", "ay", "1", "3"]
    assert argv[argv.index("PIDs") :] == ["PIDs", "au", "2", "10", "11", "0"]
    changed = [str(word) for word in change_command("x.scope", PLACE).argv]
    assert changed[changed.index("SetUnitProperties") :][:5] == ["SetUnitProperties", "sba(sv)", "x.scope", "true", "2"]


# -- what a host can do -----------------------------------------------------------------------------------------------
UNIFIED = "31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
OLD = "34 31 0:31 / /sys/fs/cgroup/cpu\\040set rw,relatime - cgroup cgroup rw,cpuset\n"


def host(root: Path, mounts: str, *, version: int = 2, systemd: bool = False, container: bool = False) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(f"22 1 0:20 / / rw - ext4 /dev/sda1 rw\n{mounts}garbage\n")
    (root / "sys/fs").mkdir(parents=True)
    if version == 1:
        (root / "sys/fs/cgroup").mkdir()
    top = root / ("sys/fs/cgroup" if version == 2 else "sys/fs/cgroup/cpu set")
    make_tree(top, version)
    if container:
        (top / "cgroup.type").write_text("domain\n")
    if systemd:
        (root / "run/systemd/system").mkdir(parents=True)
    return root


def test_root_makes_cpusets_of_its_own(tmp_path: Path) -> None:
    found = pinning_abilities(host(tmp_path, UNIFIED), euid=0)
    assert found == PinningAbilities(Means.CGROUP, None, Hierarchy(tmp_path / "sys/fs/cgroup", 2))
    assert found.moves_memory


def test_systemd_is_asked_where_it_runs(tmp_path: Path) -> None:
    assert pinning_abilities(host(tmp_path, UNIFIED, systemd=True), euid=0).means is Means.SCOPE


def test_systemd_needs_no_cgroups_that_we_may_write(tmp_path: Path) -> None:
    """ProtectControlGroups= in carmeld's unit."""
    found = pinning_abilities(host(tmp_path, UNIFIED.replace(" rw,", " ro,"), systemd=True), euid=0)
    assert found.means is Means.SCOPE


def test_without_flock_nothing_can_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abilities, "find_program", lambda _name: None)
    found = pinning_abilities(host(tmp_path, UNIFIED), euid=0)
    assert found.means is Means.AFFINITY
    assert "flock" in str(found.no_dedicated)


def test_the_old_hierarchy_serves_as_well(tmp_path: Path) -> None:
    found = pinning_abilities(host(tmp_path, OLD, version=1, systemd=True), euid=0)
    assert found.hierarchy == Hierarchy(tmp_path / "sys/fs/cgroup/cpu set", 1)
    assert found.means is Means.CGROUP


@pytest.mark.parametrize(
    ("mounts", "euid", "container", "word"),
    [
        (UNIFIED, 1000, False, "root"),
        ("", 0, False, "mounted"),
        (UNIFIED.replace(" rw,relatime", " ro,relatime"), 0, False, "open for writing"),
        (UNIFIED, 0, True, "processes of its own"),
    ],
)
def test_what_a_host_cannot_do_is_a_sentence(
    tmp_path: Path, mounts: str, euid: int, container: bool, word: str
) -> None:
    found = pinning_abilities(host(tmp_path, mounts, container=container), euid=euid)
    assert found.means is Means.AFFINITY
    assert word in str(found.no_dedicated)
    assert not found.moves_memory


def test_a_container_that_hands_on_already_is_able(tmp_path: Path) -> None:
    root = host(tmp_path, UNIFIED, container=True)
    (root / "sys/fs/cgroup/cgroup.subtree_control").write_text("cpuset\n")
    assert pinning_abilities(root, euid=0).means is Means.CGROUP


def test_nothing_at_all_is_no_crash(tmp_path: Path) -> None:
    assert pinning_abilities(tmp_path, euid=0).means is Means.AFFINITY


@pytest.mark.parametrize(
    ("means", "kind"), [(Means.CGROUP, CgroupCpuset), (Means.SCOPE, ScopeCpuset), (Means.AFFINITY, NoCpuset)]
)
def test_a_vm_gets_the_cpuset_that_its_host_has(tmp_path: Path, means: Means, kind: type) -> None:
    hierarchy = Hierarchy(tmp_path, 2) if means is not Means.AFFINITY else None
    found = PinningAbilities(means, None if hierarchy else "it is a test", hierarchy)
    pinner = Pinner(found, Paths(tmp_path, tmp_path, tmp_path), SystemRunner())
    cpuset = pinner.cpuset("uid", "0123456789abcdef")
    assert isinstance(cpuset, kind)
    assert cpuset.gated is (hierarchy is not None)
    # Where a cpuset holds them, children need no affinity to begin with.
    assert pinner.start_on(PLACE) == (None if hierarchy else PLACE.cpus)
    assert pinner.start_on(None) is None


async def test_without_cpusets_memory_stays_and_cpus_are_shared(tmp_path: Path) -> None:
    found = PinningAbilities(Means.AFFINITY, "carmeld does not run as root")
    pinner = Pinner(found, Paths(tmp_path, tmp_path, tmp_path), SystemRunner())
    with pytest.raises(CannotPin) as caught:
        pinner.require(PLACE)
    assert caught.value.code == "DedicatedCPUsUnavailable"
    assert "root" in caught.value.message
    shared = dataclasses.replace(PLACE, exclusive=False)
    pinner.require(shared)
    cpuset = pinner.cpuset("uid", "0123")
    await cpuset.change([1], shared, dataclasses.replace(shared, emulator=(2,)))
    with pytest.raises(CannotPin, match="nodes 1"):
        await cpuset.change([1], shared, dataclasses.replace(shared, memory_nodes=(1,)))


async def test_a_cgroup_cpuset_is_made_changed_and_removed(tmp_path: Path) -> None:
    mount = make_tree(tmp_path / "cgroup", 2)
    cpuset = CgroupCpuset(CgroupTree(Hierarchy(mount, 2), "h"), short_hash("uid"))
    await cpuset.start([7, 8], PLACE, "a VM")
    place = mount / "carmel-h" / short_hash("uid")
    assert sorted((place / "cgroup.procs").read_text().split()) == ["7", "8"]
    # After a restart of the daemon one may have been missed.
    await cpuset.change([7, 8, 9], PLACE, dataclasses.replace(PLACE, memory_nodes=(1,)))
    assert (place / "cpuset.mems").read_text().strip() == "1"
    assert "9" in (place / "cgroup.procs").read_text().split()
    await cpuset.remove()  # busy: told in the log, and swept later
    assert place.exists()
    leave(place)
    await cpuset.remove()
    assert not place.exists()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSystemd:
    mount = make_tree(tmp_path / "cgroup", 2)
    (mount / "cgroup.subtree_control").write_text("+cpuset")
    (mount / "system.slice").mkdir()
    (mount / "system.slice" / "cgroup.subtree_control").write_text("+cpuset")
    found = FakeSystemd(mount)
    monkeypatch.setattr(scope, "cgroup_of", lambda pid: found.pids.get(pid, "/system.slice/carmeld.service"))
    return found


def in_scope(systemd: FakeSystemd) -> ScopeCpuset:
    return ScopeCpuset(systemd, Hierarchy(systemd.slice.parent, 2), "vm.scope")


async def test_a_scope_is_there_when_start_returns(systemd: FakeSystemd) -> None:
    cpuset = in_scope(systemd)
    await cpuset.start([7, 8], PLACE, "a VM")
    assert (systemd.slice / "vm.scope" / "cpuset.cpus").read_text().strip() == "1-3"
    after = dataclasses.replace(PLACE, vcpus=((0,), (3,)), memory_nodes=(1,))
    await cpuset.change([7, 8], PLACE, after)
    assert (systemd.slice / "vm.scope" / "cpuset.cpus.effective").read_text().strip() == "0-1,3"
    assert (systemd.slice / "vm.scope" / "cpuset.mems.effective").read_text().strip() == "1"


async def test_what_systemd_does_not_do_is_told(systemd: FakeSystemd, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuset = in_scope(systemd)
    systemd.refuses = "Call failed: Unit vm.scope was already loaded"
    with pytest.raises(CannotPin, match="already loaded"):
        await cpuset.start([7], PLACE, "a VM")
    systemd.refuses, systemd.deaf = None, True
    monkeypatch.setattr(scope, "_DONE_SECONDS", 0.05)
    with pytest.raises(CannotPin, match=r"process 7 is not in vm\.scope"):
        await cpuset.start([7], PLACE, "a VM")
    with monkeypatch.context() as patient:
        patient.setattr(scope, "_DONE_SECONDS", 30.0)
        systemd.deaf = False
        await cpuset.start([7], PLACE, "a VM")
    with pytest.raises(CannotPin, match=r"cpus .* instead of 9"):
        await cpuset.change([7], PLACE, Pinning(((9,),), (9,), (0,)))
