"""What this host can do to hold a VM at its place. Only reads; changes nothing."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from carmel.run import find_program

_GATE = "flock"


class Means(StrEnum):
    """``SCOPE``: cpusets of systemd scopes. ``CGROUP``: cpusets that we make. ``AFFINITY``: of threads only, which
    keeps nobody else away. ``NOTHING``: the system decides alone (macOS)."""

    SCOPE = "scope"
    CGROUP = "cgroup"
    AFFINITY = "affinity"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted cgroup tree that has the cpuset controller. ``version`` 1 or 2 (cgroups(7))."""

    mount: Path
    version: int


@dataclass(frozen=True, slots=True)
class PinningAbilities:
    """``no_dedicated``: a sentence, why CPUs cannot be kept for one VM here; ``None``: they can. ``moves_memory``:
    whether a running VM's memory can be moved to other nodes. ``hierarchy`` holds the cpusets, if there are any."""

    means: Means
    no_dedicated: str | None = None
    hierarchy: Hierarchy | None = None

    @property
    def moves_memory(self) -> bool:
        return self.hierarchy is not None


def pinning_abilities(root: Path = Path("/"), *, euid: int | None = None) -> PinningAbilities:
    """Look at the system below ``root``, as the user ``euid`` (ours)."""
    if not sys.platform.startswith("linux"):
        return PinningAbilities(Means.NOTHING, "this system has no means to keep CPUs for a VM: only Linux does")
    if (os.geteuid() if euid is None else euid) != 0:
        return _affinity("carmeld does not run as root, and only root can keep CPUs for a VM")
    if find_program(_GATE) is None:
        return _affinity(
            "the program flock is missing, without which VMs cannot start in their cpusets: it is in util-linux"
        )
    found = _hierarchy(root)
    if found is None:
        return _affinity("no cgroup tree with the controller cpuset is mounted on this host")
    hierarchy, writable = found
    # systemd of old, with version 1, does not touch the controller cpuset, so we may.
    if hierarchy.version == 2 and (root / "run/systemd/system").is_dir():
        return PinningAbilities(Means.SCOPE, None, hierarchy)
    if not writable:
        return _affinity(f"the cgroup tree at {hierarchy.mount} is not open for writing")
    problem = _cannot_hand_on(hierarchy.mount) if hierarchy.version == 2 else None
    return _affinity(problem) if problem else PinningAbilities(Means.CGROUP, None, hierarchy)


def _affinity(reason: str) -> PinningAbilities:
    return PinningAbilities(Means.AFFINITY, reason)


def _hierarchy(root: Path) -> tuple[Hierarchy, bool] | None:
    """The mounted tree that has the controller cpuset, only one can have it (proc(5), /proc/PID/mountinfo; cgroups(7)),
    and whether it is open for writing."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(), after.split() or [""]
        if len(fields) < 6 or kind not in ("cgroup", "cgroup2"):
            continue
        mount = root / _unescape(fields[4]).lstrip("/")
        version = 2 if kind == "cgroup2" else 1
        has = _read(mount / "cgroup.controllers").split() if version == 2 else rest[-1].split(",")
        if "cpuset" in has:
            return Hierarchy(mount, version), "rw" in fields[5].split(",")
    return None


def _cannot_hand_on(top: Path) -> str | None:
    """Why no cgroup below ``top`` can have the controller: in a container its top is a cgroup like others, and one
    with processes of its own hands on nothing (cgroup-v2.rst, "No Internal Process Constraint")."""
    is_real_top = not (top / "cgroup.type").exists()
    hands_on = "cpuset" in _read(top / "cgroup.subtree_control").split()
    if is_real_top or hands_on or not _read(top / "cgroup.procs").split():
        return None
    return f"the cgroup at {top} has processes of its own, so that it cannot give the controller cpuset to VMs"


def _unescape(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
