"""What the machine's CPUs were spent on, and by which threads that do its I/O (proc_stat(5), proc_pid_stat(5))."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from carmel.apiserver.metrics import Family, Sample, gauge
from carmel.daemon.measures import node_cpu

_PROC = Path("/proc")
_GUEST_COLUMNS = slice(8, 10)
"""``guest`` and ``guest_nice`` of /proc/stat; both are in ``user`` and ``nice`` as well."""
_UTIME, _STIME, _GUEST = 11, 12, 40
"""Fields of /proc/PID/stat behind the name, which ends with the last bracket; the first of them is the state."""
QEMU, EMULATED = "qemu", "emulated guests"
_EMULATED_VCPU = re.compile(r"(CPU \d+|ALL CPUs)/TCG")
"""A thread of QEMU (accel/tcg): to the kernel, what an emulated guest does is what QEMU does."""
_NAMES = (
    ("vhost-", "vhost"),
    ("ksoftirqd/", "ksoftirqd"),
    ("irq/", "irq threads"),
    ("napi/", "napi"),
    ("nvme", "nvme"),
    ("qemu-system", QEMU),
    ("qemu-storage", "storage"),
    ("qemu-nbd", "storage"),
    ("passt", "passt"),
    ("ovs-vswitchd", "ovs"),
    ("dnsmasq", "dnsmasq"),
)
"""By the beginning of a thread's name (15 characters of it); a kworker's tells whose work it does at the moment."""


def read_cpu_time(proc: Path = _PROC) -> list[Family]:
    """Blocking: a small file for each process. Without /proc there are no samples."""
    cpus = gauge("carmel_node_cpu_count", "CPUs that are online.", os.cpu_count() or 1)
    return [node_cpu(proc / "stat"), cpus, _guests(proc), _threads(proc)]


def _guests(proc: Path) -> Family:
    name = "carmel_node_cpu_guest_seconds_total"
    try:
        ticks = (proc / "stat").read_text("ascii").splitlines()[0].split()[1:]
        seconds = sum(map(int, ticks[_GUEST_COLUMNS])) / _a_second()
    except (OSError, IndexError, ValueError):
        return Family(name, "counter", "CPU time of guests, in user and nice, too.", ())
    return Family(name, "counter", "CPU time of guests, in user and nice, too.", (Sample(name, seconds),))


def _threads(proc: Path) -> Family:
    name = "carmel_node_cpu_thread_seconds_total"
    spent: Counter[str] = Counter()
    for process in _numbered(proc):
        for group, ticks in _of_process(process):
            spent[group] += ticks
    samples = tuple(
        Sample(name, ticks / _a_second(), (("group", group),)) for group, ticks in sorted(spent.items()) if ticks
    )
    return Family(name, "counter", "CPU time of threads that do I/O, without their guests', by what they are.", samples)


def _of_process(process: Path) -> Iterator[tuple[str, int]]:
    read = _read(process)
    group = group_of(read[0]) if read is not None else None
    if read is None or group is None:
        return
    if group != QEMU:
        yield group, read[1]
        return
    # Since Linux 6.4 vhost's threads are QEMU's own (vhost_task).
    for thread in _numbered(process / "task"):
        one = _read(thread)
        if one is not None:
            yield _of_qemu(one[0]), one[1]


def _of_qemu(thread: str) -> str:
    if _EMULATED_VCPU.fullmatch(thread):
        return EMULATED
    return "vhost" if group_of(thread) == "vhost" else QEMU


def group_of(name: str) -> str | None:
    """What a thread of that name does for I/O; ``None``: it is not known to do any."""
    if name.startswith("kworker/"):
        return "nvme" if "nvme" in name else None
    return next((group for start, group in _NAMES if name.startswith(start)), None)


def _read(folder: Path) -> tuple[str, int] | None:
    """Name and ticks, without those of a guest."""
    try:
        text = (folder / "stat").read_text("utf-8", "replace")
    except OSError:
        return None
    head, _, rest = text.rpartition(")")
    fields = rest.split()
    try:
        ticks = int(fields[_UTIME]) + int(fields[_STIME]) - int(fields[_GUEST])
    except (IndexError, ValueError):
        return None
    return head.partition("(")[2], max(0, ticks)


def _numbered(folder: Path) -> Iterable[Path]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 - hundreds of times: Path objects cost more than the call
    except OSError:
        return ()
    return (folder / name for name in names if name.isdigit())


def _a_second() -> int:
    return os.sysconf("SC_CLK_TCK")
