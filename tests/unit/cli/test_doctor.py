from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from carmel import doctor
from carmel.doctor import Finding, Machine, State, can_run_vms, examine
from carmel.errors import Refused
from carmel.hypervisor.abilities import QemuAbilities
from carmel.hypervisor.accelerator import HostSystem
from carmel.paths import Paths
from carmel.run import Command, Result
from tests.unit.cli.conftest import Carmel
from tests.unit.hardware.machines import server


class Scripted:
    """A runner whose programs end with these statuses."""

    def __init__(self, statuses: Mapping[str, int]) -> None:
        self._statuses = statuses

    async def run(
        self, command: Command, *, check: bool = True, on_line: Callable[[str], None] | None = None
    ) -> Result:
        return Result(self._statuses.get(command.program, 0), b"", b"")


def qemu(**changes: object) -> QemuAbilities:
    facts: dict[str, object] = {
        "binary": Path("/usr/bin/qemu-system-aarch64"),
        "version": "10.0.2",
        "target": "aarch64",
        "machine_types": {"virt-9.2": 512, "virt-10.0": 512},
        "cpu_models": frozenset(),
        "devices": frozenset({"virtio-blk-pci", "virtio-net-pci", "nvme", "virtio-scsi-pci"}),
        "accelerators": frozenset({"kvm", "tcg"}),
        "netdevs": frozenset({"user", "stream"}),
        "options": {"action": frozenset(), "sandbox": frozenset()},
    }
    return QemuAbilities(**{**facts, **changes})  # type: ignore[arg-type]


async def findings(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    found: QemuAbilities | None,
    *,
    kvm: bool = True,
    programs: frozenset[str] | None = None,
    unshare: int = 0,
) -> dict[str, Finding]:
    async def abilities(*_: object) -> QemuAbilities:
        if found is None:
            raise Refused("qemu-system-aarch64 is not installed", code="ProgramMissing")
        return found

    def program(name: str) -> Path | None:
        return Path("/usr/bin", name) if programs is None or name in programs else None

    monkeypatch.setattr(doctor, "find_abilities", abilities)
    monkeypatch.setattr(doctor, "find_program", program)
    paths = Paths(tmp_path / "s", tmp_path / "r", tmp_path / "c")
    listed = await examine(
        Machine(paths, Scripted({"unshare": unshare}), HostSystem("aarch64", "linux", kvm), tmp_path / "root")
    )
    return {one.subject: one for one in listed}


async def test_a_good_arm_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "root"
    for path, text in {
        "proc/device-tree/model": "Raspberry Pi 4 Model B\0",
        "sys/fs/cgroup/cgroup.controllers": "cpu memory",
        "run/systemd/system/x": "",
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    found = await findings(tmp_path, monkeypatch, qemu())
    assert found["Machine"].found.startswith("Raspberry Pi 4 Model B, aarch64")
    assert found["Acceleration"].found == "KVM"
    for subject in ("QEMU", "cgroups", "systemd", "User namespaces", "User networking", "QEMU sandbox", "Disk images"):
        assert found[subject].state is State.OK, subject
    assert found["Daemon"].state is State.LIMITED
    assert can_run_vms(found.values())


async def test_sockets_and_nodes_where_there_are_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server(tmp_path / "root", sockets=2, cores=1, caches=False)
    found = await findings(tmp_path, monkeypatch, qemu())
    assert " CPUs (2 sockets, 2 NUMA nodes), " in found["Machine"].found


async def test_without_qemu_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = await findings(tmp_path, monkeypatch, None, programs=frozenset())
    assert found["QEMU"].state is State.MISSING
    assert found["Disk images"].state is State.MISSING
    assert "install" in found["QEMU"].remedy
    assert not can_run_vms(found.values())


async def test_what_is_less_than_it_could_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poor = qemu(devices=frozenset({"virtio-blk-pci"}), netdevs=frozenset({"stream"}), options={"action": frozenset()})
    found = await findings(
        tmp_path,
        monkeypatch,
        poor,
        kvm=False,
        programs=frozenset({"qemu-img"}),
        unshare=1,
    )
    assert "nvme" in found["QEMU"].found
    assert found["Acceleration"].remedy.startswith("sudo usermod -aG kvm")
    assert "neither passt nor slirp" in found["User networking"].found
    assert found["User namespaces"].remedy.startswith("sudo sysctl -w kernel.unprivileged_userns_clone=1")
    assert "mtools" in found["Build of debian"].remedy
    assert found["ssh"].state is State.LIMITED
    assert can_run_vms(found.values())


@pytest.mark.parametrize(
    ("fault", "netdevs", "expected", "state"),
    [
        (None, {"user", "stream"}, "passt (/usr/bin/passt)", State.OK),
        ("passt is slow", {"user", "stream"}, "slirp, in QEMU (passt is slow)", State.OK),
        ("passt is slow", {"stream"}, "no slirp, and passt is slow: VMs have no network", State.LIMITED),
    ],
)
async def test_the_network_is_what_the_daemon_would_use(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str | None,
    netdevs: set[str],
    expected: str,
    state: State,
) -> None:
    async def find_fault(*_: object) -> str | None:
        return fault

    monkeypatch.setattr(doctor, "find_fault", find_fault)
    found = await findings(tmp_path, monkeypatch, qemu(netdevs=frozenset(netdevs)))
    assert found["User networking"] == Finding("User networking", state, expected)


def test_the_doctor_looks_at_this_very_machine(lone: Carmel, home: Path) -> None:
    told = lone("doctor", "-o", "json")
    report = told.json()
    assert told.status == (0 if report["canRunVMs"] else 5)
    assert {one["state"] for one in report["findings"]} <= {"ok", "limited", "missing"}
    daemon = next(one for one in report["findings"] if one["subject"] == "Daemon")
    assert str(home) in daemon["found"]
    assert "Acceleration" in lone("doctor").out or not report["canRunVMs"]
