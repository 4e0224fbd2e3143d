"""A cgroup tree that behaves, in an ordinary directory: what a kernel makes, refuses and answers there.

After Documentation/admin-guide/cgroup-v2.rst ("Cpuset", "No Internal Process Constraint") and cpuset(7). ``CgroupPath``
is a ``Path`` whose directories get control files, and whose control files do what they are told.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

from carmel.cpulist import format_cpu_list, parse_cpu_list

_TOP = ".cgroups"
_POSSIBLE = 8192
NO_PROCESS = 2**22 + 1
"""Larger than any pid (proc(5), pid_max)."""


def make_tree(directory: Path, version: int, cpus: str = "0-3", mems: str = "0-1") -> CgroupPath:
    """A mounted tree of a machine with these CPUs and memory nodes."""
    top = CgroupPath(directory)
    Path(top).mkdir()
    (directory / _TOP).write_text(str(version))
    suffix = "{}.effective" if version == 2 else "effective_{}"
    (directory / f"cpuset.{suffix.format('cpus')}").write_text(cpus + "\n")
    (directory / f"cpuset.{suffix.format('mems')}").write_text(mems + "\n")
    (directory / "cgroup.procs").write_text("1\n")
    if version == 2:
        (directory / "cgroup.controllers").write_text("cpuset cpu\n")
        (directory / "cgroup.subtree_control").write_text("cpu\n")
    else:
        (directory / "cpuset.cpus").write_text(cpus + "\n")
        (directory / "cpuset.mems").write_text(mems + "\n")
    return top


class CgroupPath(type(Path())):  # type: ignore[misc]
    """See above. Only what ``pinning.cgroups`` uses."""

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        existed = self.is_dir()
        super().mkdir(mode, parents, exist_ok)
        if existed:
            return
        self._put("cgroup.procs", "")
        if self._version == 1:
            for name in ("cpuset.cpus", "cpuset.mems", "cpuset.effective_cpus", "cpuset.effective_mems"):
                self._put(name, "")
            self._put("cpuset.memory_migrate", "0")
        else:
            self._put("cgroup.subtree_control", "")
            if "cpuset" in (self.parent / "cgroup.subtree_control").read_text().split():
                self._add_controller()

    def rmdir(self) -> None:
        if (self / "cgroup.procs").read_text().split() or any(each.is_dir() for each in self.iterdir()):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(self))
        shutil.rmtree(self)

    def write_text(self, data: str, *_args: Any, **_more: Any) -> int:
        group = CgroupPath(self.parent)
        match self.name:
            case "cgroup.subtree_control":
                group._hand_on(data)
            case "cpuset.cpus" | "cpuset.mems":
                group._set(self.name.removeprefix("cpuset."), data)
            case "cgroup.procs":
                group._take(int(data))
            case _:
                group._put(self.name, data)
        return len(data)

    @property
    def _version(self) -> int:
        top = next(each for each in (self, *self.parents) if (each / _TOP).exists())
        return int((top / _TOP).read_text())

    def _put(self, name: str, text: str) -> None:
        Path(self / name).write_text(text + "\n")

    def _words(self, name: str) -> list[str]:
        return Path(self / name).read_text().split()

    def _add_controller(self) -> None:
        for name in ("cpus", "mems"):
            self._put(f"cpuset.{name}", "")
            self._put(f"cpuset.{name}.effective", (self.parent / f"cpuset.{name}.effective").read_text().strip())

    def _hand_on(self, data: str) -> None:
        if data != "+cpuset" or not (self / "cpuset.cpus.effective").exists():
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if not (self / _TOP).exists() and self._words("cgroup.procs"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        self._put("cgroup.subtree_control", " ".join({*self._words("cgroup.subtree_control"), "cpuset"}))
        for child in self.iterdir():
            if child.is_dir():
                child._add_controller()

    def _set(self, name: str, data: str) -> None:
        wanted = set(parse_cpu_list(data))
        if wanted and max(wanted) >= _POSSIBLE:
            raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
        effective = "cpuset.{}.effective" if self._version == 2 else "cpuset.effective_{}"
        above = set(parse_cpu_list((self.parent / effective.format(name)).read_text()))
        if self._version == 1 and not wanted <= above:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        self._put(f"cpuset.{name}", format_cpu_list(wanted))
        self._put(effective.format(name), format_cpu_list(wanted & above or above))

    def _take(self, pid: int) -> None:
        if pid >= NO_PROCESS:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        if self._version == 1 and not (self._words("cpuset.cpus") and self._words("cpuset.mems")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._version == 2 and self._words("cgroup.subtree_control"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        self._put("cgroup.procs", "\n".join({*self._words("cgroup.procs"), str(pid)}))
