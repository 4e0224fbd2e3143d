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
_NO_CONTROLLER = "no cgroup tree with the controller cpuset is mounted, and open for writing, on this host"


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
    found = _hierarchies(root)
    unified = next((each for each in found if each.version == 2), None)
    if unified is None:
        # A systemd of old does not touch the controller cpuset, so we may.
        return PinningAbilities(Means.CGROUP, None, found[0]) if found else _affinity(_NO_CONTROLLER)
    if (root / "run/systemd/system").is_dir():
        return PinningAbilities(Means.SCOPE, None, unified)
    problem = _cannot_hand_on(unified.mount)
    return _affinity(problem) if problem else PinningAbilities(Means.CGROUP, None, unified)


def _affinity(reason: str) -> PinningAbilities:
    return PinningAbilities(Means.AFFINITY, reason)


def _hierarchies(root: Path) -> list[Hierarchy]:
    """Mounts with the controller cpuset that are open for writing (proc(5), /proc/PID/mountinfo)."""
    found = []
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        mount, options = before.split()[4:6] if len(before.split()) > 5 else ("", "")
        kind, *rest = after.split() or [""]
        if kind not in ("cgroup", "cgroup2") or "ro" in options.split(","):
            continue
        path = root / _unescape(mount).lstrip("/")
        words = _read(path / "cgroup.controllers").split()
        if kind == "cgroup2" and "cpuset" in words:
            found.append(Hierarchy(path, 2))
        elif kind == "cgroup" and "cpuset" in (rest[-1].split(",") if rest else ()):
            found.append(Hierarchy(path, 1))
    return found


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
