"""systemd's scopes: a unit for each VM, so that stopping the daemon's unit never ends it (systemd.scope(5)), and with
it a cpuset (AllowedCPUs= and AllowedMemoryNodes=, systemd.resource-control(5)).

Calls go to org.freedesktop.systemd1(5) by ``busctl``. The manager answers before it has done what was asked, so the
result is looked at in the cgroup itself.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from carmel.errors import CarmelError
from carmel.hypervisor.config import Pinning
from carmel.hypervisor.pinning.abilities import Hierarchy
from carmel.hypervisor.pinning.cgroups import CpusetFiles
from carmel.hypervisor.pinning.failures import CannotPin
from carmel.run import Command, Limits, Runner

_MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
_SYSTEMD_RUNNING = Path("/run/systemd/system")
_LIMITS = Limits(seconds=10)
_DONE_SECONDS = 30.0
"""Moving much memory takes a while."""
_POLL_SECONDS = 0.005


def systemd_runs() -> bool:
    """Whether a system manager is there that takes our units (sd_booted(3))."""
    return _SYSTEMD_RUNNING.is_dir() and os.geteuid() == 0


def scope_name(vm: str, launch_id: str) -> str:
    """``vm`` is the short hash of its uid."""
    return f"carmel-vm-{vm}-{launch_id[:8]}.scope"


def scope_command(unit: str, description: str, pids: Sequence[int], pinning: Pinning | None = None) -> Command:
    """Put running processes into a new scope (StartTransientUnit)."""
    properties = ["Description", "s", description]
    properties += ["CollectMode", "s", "inactive-or-failed"]
    properties += ["PIDs", "au", str(len(pids)), *(str(pid) for pid in pids)]
    count = 3
    if pinning is not None:
        properties = [*_cpuset_properties(pinning), *properties]
        count += 2
    return _call("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", str(count), *properties, "0")


def change_command(unit: str, pinning: Pinning) -> Command:
    """Give a scope another cpuset, until the next boot (SetUnitProperties)."""
    return _call("SetUnitProperties", "sba(sv)", unit, "true", "2", *_cpuset_properties(pinning))


async def move_into_scope(runner: Runner, unit: str, description: str, pids: Sequence[int]) -> str | None:
    """Best effort: a VM in the daemon's own unit runs as well. Returns what went wrong, for the log."""
    try:
        await runner.run(scope_command(unit, description, pids))
    except CarmelError as exc:
        return exc.message
    return None


async def start_scope(
    runner: Runner, hierarchy: Hierarchy, unit: str, description: str, pids: Sequence[int], pinning: Pinning
) -> None:
    """The processes are in their cpuset when this returns. Raises ``CannotPin``."""
    await _run(runner, scope_command(unit, description, pids, pinning), unit)
    await _until_done(hierarchy, unit, pids[-1], pinning)


async def change_scope(runner: Runner, hierarchy: Hierarchy, unit: str, pid: int, pinning: Pinning) -> None:
    """``pid``: any process of the scope. Raises ``CannotPin``."""
    if await asyncio.to_thread(_problem, hierarchy, unit, pid, pinning) is None:
        return
    await _run(runner, change_command(unit, pinning), unit)
    await _until_done(hierarchy, unit, pid, pinning)


def bits(numbers: Iterable[int]) -> bytes:
    """A set of CPUs as systemd takes it: bit N of byte N / 8."""
    mask = bytearray()
    for number in numbers:
        mask.extend(bytes(max(0, number // 8 + 1 - len(mask))))
        mask[number // 8] |= 1 << number % 8
    return bytes(mask)


def _cpuset_properties(pinning: Pinning) -> list[str]:
    words = []
    for name, numbers in (("AllowedCPUs", pinning.cpus), ("AllowedMemoryNodes", pinning.memory_nodes)):
        mask = bits(numbers)
        words += [name, "ay", str(len(mask)), *(str(byte) for byte in mask)]
    return words


def _call(method: str, signature: str, *arguments: str) -> Command:
    return Command(["busctl", "call", *_MANAGER, method, signature, *arguments], limits=_LIMITS)


async def _run(runner: Runner, command: Command, unit: str) -> None:
    try:
        await runner.run(command)
    except CarmelError as exc:
        raise CannotPin(
            f"systemd did not give {unit} its CPUs and memory nodes: {exc.message}",
            hint="it is asked over the system bus: is dbus installed, and running?",
        ) from exc


async def _until_done(hierarchy: Hierarchy, unit: str, pid: int, pinning: Pinning) -> None:
    clock = asyncio.get_running_loop().time
    deadline = clock() + _DONE_SECONDS
    while (problem := await asyncio.to_thread(_problem, hierarchy, unit, pid, pinning)) is not None:
        if clock() > deadline or cgroup_of(pid) is None:
            raise problem
        await asyncio.sleep(_POLL_SECONDS)


def _problem(hierarchy: Hierarchy, unit: str, pid: int, pinning: Pinning) -> CannotPin | None:
    cgroup = cgroup_of(pid)
    if cgroup is None or Path(cgroup).name != unit:
        return CannotPin(f"process {pid} is not in {unit}", hint="systemd's journal says why: journalctl -b")
    try:
        CpusetFiles(hierarchy.mount / cgroup.lstrip("/"), hierarchy.version).check(pinning)
    except CannotPin as exc:
        return exc
    return None


def cgroup_of(pid: int) -> str | None:
    """The path of a process in the tree of version 2 (cgroups(7), /proc/PID/cgroup)."""
    try:
        lines = (Path("/proc") / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return None
    return next((line[3:] for line in lines if line.startswith("0::")), None)
