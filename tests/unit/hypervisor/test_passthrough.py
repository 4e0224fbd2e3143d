"""Functions of the host: whose group is opened to whom, how much may be locked, and what is refused."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from carmel.errors import Refused
from carmel.hypervisor.account import Account
from carmel.hypervisor.arch import architecture
from carmel.hypervisor.commandline import Platform, Start, command_line
from carmel.hypervisor.config import Accelerator, MachineConfig
from carmel.hypervisor.devices import Device, DeviceKind
from carmel.hypervisor.firmware import FirmwareFiles
from carmel.hypervisor.memlock import allow_to_lock, children_may_lock, locked_bytes
from carmel.hypervisor.passthrough import VfioGroups
from carmel.units import GIB, MIB
from tests.unit.hypervisor.cases import PATHS, SOCKETS, abilities, layers, shaped

ADDRESS = "0000:01:00.1"
SOMEBODY = Account(1234, 1235)
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A host with one function, driven by vfio-pci, in group 5."""
    device = tmp_path / "sys/bus/pci/devices" / ADDRESS
    device.mkdir(parents=True)
    (device / "driver").symlink_to("../../drivers/vfio-pci")
    (device / "iommu_group").symlink_to("../../../kernel/iommu_groups/5")
    (tmp_path / "dev/vfio").mkdir(parents=True)
    (tmp_path / "dev/vfio/5").touch(0o600)
    return tmp_path


@as_root
def test_a_group_is_handed_over_for_a_run(root: Path) -> None:
    groups, file = VfioGroups(root), root / "dev/vfio/5"
    for _ in range(2):
        groups.hand_over(ADDRESS, SOMEBODY)
        assert (file.stat().st_uid, file.stat().st_gid, file.stat().st_mode & 0o777) == (1234, 1235, 0o600)
    for _ in range(2):
        groups.take_back([ADDRESS])
        assert (file.stat().st_uid, file.stat().st_gid) == (0, 0)


def test_what_is_gone_is_taken_back_without_a_word(root: Path) -> None:
    (root / "dev/vfio/5").unlink()
    VfioGroups(root).take_back([ADDRESS, "0000:09:00.0"])


def test_a_daemon_of_a_user_uses_what_the_user_was_given(root: Path) -> None:
    VfioGroups(root).hand_over(ADDRESS, Account())
    assert (root / "dev/vfio/5").stat().st_uid == os.geteuid()


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        ("sys/bus/pci/devices/0000:01:00.1/driver", "FunctionNotBound"),
        ("sys/bus/pci/devices/0000:01:00.1/iommu_group", "NoIOMMU"),
        ("dev/vfio/5", "NoIOMMU"),
    ],
)
def test_a_function_that_no_vm_can_have_is_refused(root: Path, broken: str, code: str) -> None:
    (root / broken).unlink()
    with pytest.raises(Refused) as caught:
        VfioGroups(root).hand_over(ADDRESS, Account())
    assert caught.value.code == code


def test_a_function_that_is_not_there_is_refused(root: Path) -> None:
    with pytest.raises(Refused) as caught:
        VfioGroups(root).hand_over("0000:09:00.0", Account())
    assert caught.value.code == "FunctionMissing"


# -- what it may lock ---------------------------------------------------------------------------------------------
@pytest.fixture
def little() -> Iterator[tuple[int, int]]:
    """We may lock 1 MiB, and say so of more ourselves: raising the soft limit needs no right."""
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    hard = before[1]
    if hard != resource.RLIM_INFINITY and hard < 4 * MIB:
        pytest.skip("this account may lock too little")
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (MIB, hard))
    yield MIB, hard
    resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


def test_a_child_may_lock_its_memory_and_we_no_more_than_before(little: tuple[int, int]) -> None:
    with children_may_lock(4 * MIB):
        said = subprocess.run(["sh", "-c", "ulimit -l"], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(4 * 1024)
    assert resource.getrlimit(resource.RLIMIT_MEMLOCK) == little
    for enough in (None, MIB // 2):
        with children_may_lock(enough):
            assert resource.getrlimit(resource.RLIMIT_MEMLOCK) == little


def test_a_process_that_runs_is_let_lock_more_and_never_less(little: tuple[int, int]) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        for wanted in (3 * MIB, 2 * MIB):
            allow_to_lock(child.pid, wanted)
            assert resource.prlimit(child.pid, resource.RLIMIT_MEMLOCK) == (3 * MIB, little[1])
        assert child.stdin is not None
        child.stdin.close()


def test_who_may_not_raise_a_limit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_arguments: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _what: (MIB, MIB))
    monkeypatch.setattr(resource, "setrlimit", forbidden)
    with pytest.raises(Refused) as caught, children_may_lock(16 * MIB):
        pass
    assert caught.value.code == "MemlockTooSmall"
    assert "16Mi" in caught.value.message


def test_devices_registers_are_locked_beside_the_memory() -> None:
    assert locked_bytes(2 * GIB) == 3 * GIB


# -- the command line ---------------------------------------------------------------------------------------------
def build(config: MachineConfig, devices: frozenset[str] | None = None) -> tuple[Device, ...]:
    qemu = abilities("7.2")
    qemu = replace(qemu, devices=qemu.devices if devices is None else devices)
    platform = Platform(architecture("aarch64"), qemu, Accelerator.TCG, FirmwareFiles(Path("/code.fd"), None))
    return command_line(config, platform, PATHS, Start("0123abcd", SOCKETS), layers()).devices


def test_devices_know_what_they_are_made_of() -> None:
    virtual, function, root, data, drive = build(shaped("functions"))
    assert virtual == Device(DeviceKind.NIC, "a", "nic0", None, netdev="net0")
    assert function == Device(DeviceKind.NIC, "b", "nic1", "nicport1", function=ADDRESS)
    assert root == Device(DeviceKind.DISK, "root", "disk0-dev", None, nodes=("disk0", "disk0-base1"))
    assert data.nodes == ("disk1",)
    assert drive == Device(DeviceKind.DISK, "drive", "disk2-dev", "diskport2", function="0000:02:00.0")
    far = build(shaped("nbd"))[-1]
    assert (far.nodes, far.objects) == (("disk2",), ("disk2-tls",))


@pytest.mark.parametrize(("config", "devices"), [("iommu", None), ("plain", frozenset[str]())])
def test_a_vm_that_cannot_have_functions_is_refused(config: str, devices: frozenset[str] | None) -> None:
    with pytest.raises(Refused) as caught:
        build(replace(shaped("functions"), iommu=config == "iommu"), devices)
    assert caught.value.code == "NotSupported"
