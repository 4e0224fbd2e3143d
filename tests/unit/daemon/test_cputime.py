"""CPU time, read from /proc: guests' own is not counted as I/O."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from carmel.apiserver.metrics import Family
from carmel.daemon.cputime import group_of, read_cpu_time

HZ = os.sysconf("SC_CLK_TCK")


def put(folder: Path, name: str, user: int, system: int, guest: int = 0) -> None:
    """``/proc/PID/stat``, as proc_pid_stat(5) has it."""
    folder.mkdir(parents=True)
    fields = ["S", *["0"] * 10, str(user * HZ), str(system * HZ), *["0"] * 27, str(guest * HZ), *["0"] * 9]
    (folder / "stat").write_text(f"{folder.name} ({name}) {' '.join(fields)}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "stat").write_text(f"cpu {9 * HZ} 0 {4 * HZ} {80 * HZ} 0 1 2 0 {5 * HZ} {HZ}\ncpu0 1 2\n")
    put(tmp_path / "12", "ksoftirqd/0", 0, 2)
    put(tmp_path / "13", "kworker/1:1H-nvme-wq", 0, 1)
    put(tmp_path / "14", "kworker/1:1-events", 0, 9)
    put(tmp_path / "15", "vhost-99", 0, 3)
    put(tmp_path / "16", "bash", 50, 0)
    put(tmp_path / "99", "qemu-system-aar", 20, 2, 12)
    put(tmp_path / "99/task/99", "qemu-system-aar", 3, 1)
    put(tmp_path / "99/task/100", "CPU 0/KVM", 13, 1, 12)
    put(tmp_path / "99/task/101", "vhost-99", 0, 4)
    put(tmp_path / "98", "qemu-system-aar", 30, 0)
    put(tmp_path / "98/task/98", "qemu-system-aar", 1, 0)
    put(tmp_path / "98/task/102", "CPU 3/TCG", 29, 0)
    (tmp_path / "77").mkdir()
    put(tmp_path / "78", "a) R (odd", 1, 1)
    return tmp_path


def values(family: Family) -> dict[str, float]:
    return {next((value for _, value in one.labels), ""): one.value for one in family.samples}


def test_threads_by_what_they_do(proc: Path) -> None:
    modes, cpus, guests, threads = read_cpu_time(proc)
    assert values(modes)["system"] == 4
    assert values(cpus)[""] == os.cpu_count()
    assert values(guests)[""] == 6
    assert values(threads) == {"ksoftirqd": 2, "nvme": 1, "vhost": 7, "qemu": 3 + 1 + 2 + 1, "emulated guests": 29}


def test_nothing_to_read_is_nothing(tmp_path: Path) -> None:
    assert [values(one) for one in read_cpu_time(tmp_path / "none") if one.type == "counter"] == [{}, {}, {}]


def test_this_machine_has_some() -> None:
    assert sum(values(read_cpu_time()[0]).values()) > 0


def test_names() -> None:
    assert group_of("irq/45-nvme0q1") == "irq threads"
    assert group_of("napi/eth0-5") == "napi"
    assert group_of("python3") is None
