"""Small pure parts: accelerator, logs, records, terminations, diagnoses, abilities."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from carmel.errors import Refused
from carmel.hypervisor import logs
from carmel.hypervisor.abilities import find_abilities
from carmel.hypervisor.accelerator import HostSystem, choose_accelerator
from carmel.hypervisor.config import Accelerator
from carmel.hypervisor.devices import Device, DeviceKind, NbdServer
from carmel.hypervisor.diagnosis import explain
from carmel.hypervisor.failures import QEMUFailed, QEMUTooOld
from carmel.hypervisor.machine import MachineState
from carmel.hypervisor.pinning.scope import scope_command
from carmel.hypervisor.record import BadRecord, HelperRecord, LaunchRecord, ProcessId
from carmel.hypervisor.termination import termination
from carmel.paths import Paths
from carmel.resources.virtualmachine import TerminationReason
from carmel.run import Command, Result, SystemRunner
from tests.fakes.qmp import FakeQemu
from tests.unit.hypervisor.cases import abilities

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RECORD = LaunchRecord(
    uid="u",
    launch_id="l",
    argv=("qemu", "-x"),
    machine_type="virt-7.2",
    accelerator=Accelerator.TCG,
    cpu_model="cortex-a57",
    started_at=NOW,
    boot_id="this boot",
    process=ProcessId(7, "99"),
    helpers=(HelperRecord("passt", ("passt", "-f"), ProcessId(6, "98")),),
    devices=(
        Device(DeviceKind.DISK, "far", "plug-port0", "port0", server=NbdServer("nas", 10809, 600)),
        Device(DeviceKind.NIC, "eth0", "nic0", "nicport0", netdev="net0", function="0000:01:00.1"),
        Device(DeviceKind.DISK, "root", "disk0-dev", None, nodes=("a", "b"), objects=("c",), plugged=False),
    ),
    iommu=True,
)


def test_a_record_of_an_older_version_is_read(tmp_path: Path) -> None:
    RECORD.save(tmp_path / "launch.json")
    data = json.loads((tmp_path / "launch.json").read_text())
    for name in ("pinning", "devices", "iommu"):
        del data[name]
    (tmp_path / "launch.json").write_text(json.dumps(data))
    assert LaunchRecord.load(tmp_path / "launch.json", uid="u") == replace(RECORD, devices=None, iommu=False)


@pytest.mark.parametrize(
    ("machine", "system", "kvm", "built_in", "expected"),
    [
        ("aarch64", "linux", True, {"tcg", "kvm"}, Accelerator.KVM),
        ("aarch64", "linux", False, {"tcg", "kvm"}, Accelerator.TCG),
        ("aarch64", "linux", True, {"tcg"}, Accelerator.TCG),
        ("x86_64", "linux", True, {"tcg", "kvm"}, Accelerator.TCG),
        ("aarch64", "darwin", False, {"tcg", "hvf"}, Accelerator.HVF),
        ("x86_64", "darwin", False, {"tcg", "hvf"}, Accelerator.TCG),
    ],
)
def test_accelerator(machine: str, system: str, kvm: bool, built_in: set[str], expected: Accelerator) -> None:
    qemu = replace(abilities("7.2"), accelerators=frozenset(built_in))
    assert choose_accelerator(qemu, HostSystem(machine, system, kvm)).accelerator is expected


def test_a_record_survives_the_disk(tmp_path: Path) -> None:
    RECORD.save(tmp_path / "launch.json")
    assert LaunchRecord.load(tmp_path / "launch.json", uid="u") == RECORD
    with pytest.raises(BadRecord):
        LaunchRecord.load(tmp_path / "launch.json", uid="another")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 99}', '{"format": 1, "uid": "u"}'])
def test_a_spoilt_record_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "launch.json").write_text(text)
    with pytest.raises(BadRecord):
        LaunchRecord.load(tmp_path / "launch.json", uid="u")


@pytest.mark.parametrize(
    ("state", "record", "boot", "expected"),
    [
        (MachineState.SHUTDOWN, RECORD, "this boot", TerminationReason.GUEST_SHUTDOWN),
        (MachineState.PANICKED, RECORD, "this boot", TerminationReason.GUEST_PANIC),
        (MachineState.ENDED, RECORD, "this boot", TerminationReason.QEMU_FAILED),
        (MachineState.ENDED, RECORD, "next boot", TerminationReason.HOST_REBOOT),
        (MachineState.RUNNING, RECORD.with_ending("HostRequest", "x"), "this boot", TerminationReason.HOST_REQUEST),
        # The guest was first.
        (MachineState.PANICKED, RECORD.with_ending("HostRequest", "x"), "this boot", TerminationReason.GUEST_PANIC),
    ],
)
def test_termination(state: MachineState, record: LaunchRecord, boot: str, expected: TerminationReason) -> None:
    ended = termination(record, state, now=NOW, boot_id=boot, status=-11, words=["segfault"])
    assert ended.reason is expected
    assert ended.signal == (11 if state is MachineState.ENDED else None)
    assert ended.started_at == NOW


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("Could not set up host forwarding rule 'tcp:127.0.0.1:80-:80'", "PortInUse"),
        ('Failed to get "write" lock', "DiskInUse"),
        ("cannot set up guest memory 'mach-virt.ram': Cannot allocate memory", "InsufficientMemory"),
        ("Could not access KVM kernel module: Permission denied", "NoAccelerator"),
        ("vfio /sys/bus/pci/devices/0000:99:00.0: no such host device: No such file or directory", "FunctionMissing"),
        ("vfio 0000:00:00.0: no iommu_group found: No such file or directory", "NoIOMMU"),
        ("vfio 0000:01:00.0: group 5 is not viable", "FunctionGroupShared"),
        ("vfio 0000:01:00.0: failed to open /dev/vfio/5: Device or resource busy", "FunctionInUse"),
        ("vfio 0000:01:00.0: error getting device from group 5: Invalid argument", "FunctionInUse"),
        ("vfio 0000:01:00.0: failed to open /dev/vfio/5: Permission denied", "NotPermitted"),
        (
            "vfio 0000:01:00.0: Failed to set iommu for container: Operation not permitted",
            "UnsafeInterrupts",
        ),
        ("vfio_dma_map(0x5581, 0x40000000, 0x80000000, 0x7f4) = -12 (Cannot allocate memory)", "MemlockTooSmall"),
    ],
)
def test_known_failures_get_a_code_and_a_hint(words: str, code: str) -> None:
    error = explain("QEMU", [f"2026-01-02T03:04:05.000000Z qemu-system-aarch64: {words}", "more"], "exit status 1")
    assert isinstance(error, Refused)
    assert (error.code, bool(error.hint)) == (code, True)
    assert "2026" not in error.message


def test_an_unknown_failure_is_quoted() -> None:
    error = explain("QEMU", ["strange"], "signal 11")
    assert isinstance(error, QEMUFailed)
    assert "strange" in error.message
    assert "signal 11" in error.message


def test_a_log_is_capped_and_goes_on(tmp_path: Path) -> None:
    log, older = tmp_path / "log", tmp_path / "log.1"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"a" * 50 + b"b" * 100)
        logs.cap(log, older, 100)
        assert (log.read_bytes(), older.read_bytes()) == (b"", b"b" * 100)
        writer.write(b"c")
        assert log.read_bytes() == b"c"
        logs.cap(log, None, 0)
    assert log.read_bytes() == b""


def test_a_log_without_an_older_one_keeps_its_tail(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"old" * 100 + b"new")
    logs.cap(log, None, 3)
    assert log.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [log]


def test_last_words_are_this_runs_and_harmless(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"earlier run\n\x1b[31mbad\x07 thing\n\n")
    assert logs.last_words(log, 12) == ["[31mbad thing"]
    # Capped since: what there is.
    assert logs.last_words(log, 10_000) == ["earlier run", "[31mbad thing"]
    assert logs.last_words(tmp_path / "none", 0) == []


@pytest.mark.parametrize(
    ("console", "expected"),
    [
        ("[ 9.1] ---[ end Kernel panic - not syncing: sysrq triggered crash ]---\r\n", "sysrq triggered crash"),
        ("---[ end Kernel panic - not syncing: VFS: no root ]---\r\n[    0.000000] Booting Linux\r\n", None),
        ("login: ", None),
        ("", None),
    ],
)
def test_panic_on_the_console(tmp_path: Path, console: str, expected: str | None) -> None:
    log = tmp_path / "serial.log"
    log.write_text(console)
    found = logs.panic_message(log)
    assert found == (f"Kernel panic - not syncing: {expected}" if expected else None)


class ScriptedQemu:
    """A runner whose QEMU gives ``answers`` on the monitor that it is passed, or ends at once without any."""

    def __init__(self, answers: Mapping[str, Any] | None) -> None:
        self.calls = 0
        self._answers = answers

    async def run(self, command: Command, *, check: bool = True, on_line: object = None) -> Result:
        self.calls += 1
        if self._answers is None:
            return Result(1, b"", b"qemu: cannot do that")
        (monitor,) = command.pass_fds
        reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=os.dup(monitor)))
        try:
            await FakeQemu(answers=self._answers).serve(reader, writer)
        finally:
            writer.close()
        return Result(0, b"", b"")


async def test_no_qemu_is_refused_with_what_to_do(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path, tmp_path)
    with pytest.raises(Refused) as caught:
        await find_abilities("aarch64", paths, SystemRunner(), tmp_path / "qemu-system-aarch64")
    assert caught.value.code == "ProgramMissing"
    assert "install" in str(caught.value.hint)


@pytest.mark.parametrize("answers", [None, {}, {"query-version": {}}, {"query-version": "seven"}])
async def test_a_qemu_that_does_not_answer_is_told(tmp_path: Path, answers: Mapping[str, Any] | None) -> None:
    binary = tmp_path / "qemu"
    binary.write_bytes(b"")
    with pytest.raises(QEMUFailed):
        await find_abilities("aarch64", Paths(tmp_path, tmp_path, tmp_path / "cache"), ScriptedQemu(answers), binary)


async def test_an_old_qemu_is_refused_by_what_it_lacks(tmp_path: Path) -> None:
    binary = tmp_path / "qemu"
    binary.write_bytes(b"")
    answers = {
        "query-version": {"qemu": {"major": 6, "minor": 2, "micro": 0}, "package": ""},
        "query-target": {"arch": "aarch64"},
        "query-machines": [{"name": "virt-6.2", "cpu-max": 512}],
        "qom-list-types": [{"name": "tcg-accel"}],
        "query-command-line-options": [{"option": "action", "parameters": []}],
        "query-qmp-schema": [
            {"name": "netdev_add", "meta-type": "command", "arg-type": "7"},
            {"name": "7", "meta-type": "object", "variants": [{"case": "user", "type": "8"}]},
        ],
    }
    runner, paths = ScriptedQemu(answers), Paths(tmp_path, tmp_path, tmp_path / "cache")
    for _ in range(2):
        with pytest.raises(QEMUTooOld) as caught:
            await find_abilities("aarch64", paths, runner, binary)
        assert "6.2.0" in caught.value.message
        assert "-netdev stream" in caught.value.message
    assert runner.calls == 1
    # Another file, another question.
    binary.write_bytes(b"upgraded")
    with pytest.raises(QEMUTooOld):
        await find_abilities("aarch64", paths, runner, binary)
    assert runner.calls == 2


def test_a_scope_takes_all_processes() -> None:
    argv = [str(word) for word in scope_command("carmel-vm-x.scope", "a VM", [10, 11]).argv]
    assert argv[argv.index("PIDs") :] == ["PIDs", "au", "2", "10", "11", "0"]
    assert argv[argv.index("carmel-vm-x.scope") + 1] == "fail"
