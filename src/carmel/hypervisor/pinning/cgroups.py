"""Cpusets in cgroups that we make: ``MOUNT/carmel-HOUSE/VM``, version 2 or 1.

Version 2: Documentation/admin-guide/cgroup-v2.rst, "Cpuset". A cgroup that hands on a controller has no processes of
its own, so ours hold none but in the leaves. Version 1: cpuset(7); a new cpuset is empty there and must be filled
before it takes processes, and pages move only with ``memory_migrate``.

Writing ``cpuset.mems`` moves the pages of all processes within, returns when that is done, and turns the nodes of
their memory policies (QEMU's ``host-nodes``) into the new ones by their order (mm/mempolicy.c,
``mpol_rebind_nodemask``): what is faulted later lies on the new nodes too.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from carmel.cpulist import format_cpu_list, parse_cpu_list
from carmel.hypervisor.config import Pinning
from carmel.hypervisor.pinning.abilities import Hierarchy
from carmel.hypervisor.pinning.failures import CannotPin, cannot_pin

_PREFIX = "carmel-"
_EMPTY_SECONDS = 2.0
_POLL_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class CpusetFiles:
    """The cpuset at ``directory``, whoever made it. All of it blocks."""

    directory: Path
    version: int

    def set(self, pinning: Pinning) -> None:
        """CPUs first: they cost nothing if they cannot be had, while pages that moved would have to move back."""
        self._write("cpus", pinning.cpus, "the CPUs")
        self._check("cpus", pinning.cpus)
        self._write("mems", pinning.memory_nodes, "the memory nodes")
        self._check("mems", pinning.memory_nodes)

    def check(self, pinning: Pinning) -> None:
        """Whether it has what it should. Raises ``CannotPin``."""
        self._check("cpus", pinning.cpus)
        self._check("mems", pinning.memory_nodes)

    def _check(self, name: str, wanted: tuple[int, ...]) -> None:
        """Version 2 takes what the cpuset above does not have, and then gives something else."""
        got = self.effective(name)
        if got != wanted:
            raise CannotPin(
                f"the VM's cpuset got {name} {format_cpu_list(got) or 'none'} instead of {format_cpu_list(wanted)}",
                hint="the others are offline, or kept by a cpuset above it",
            )

    def effective(self, name: str) -> tuple[int, ...]:
        """``cpus`` or ``mems`` that it really has."""
        file = f"cpuset.{name}.effective" if self.version == 2 else f"cpuset.effective_{name}"
        try:
            return parse_cpu_list((self.directory / file).read_text())
        except (OSError, ValueError) as exc:
            raise CannotPin(f"the VM's cpuset {self.directory} cannot be read: {exc}") from exc

    def place(self, pids: Iterable[int]) -> None:
        """Move whole processes in. One that ended is passed over."""
        for pid in pids:
            try:
                (self.directory / "cgroup.procs").write_text(str(pid))
            except ProcessLookupError:
                continue
            except OSError as exc:
                raise CannotPin(f"process {pid} cannot be moved into {self.directory}: {exc.strerror}") from exc

    def holds(self) -> tuple[int, ...]:
        """The processes within."""
        with contextlib.suppress(OSError):
            return tuple(int(word) for word in (self.directory / "cgroup.procs").read_text().split())
        return ()

    def _write(self, name: str, numbers: tuple[int, ...], what: str) -> None:
        wanted = format_cpu_list(numbers)
        file = self.directory / f"cpuset.{name}"
        try:
            # Writing mems moves pages even if nothing changes.
            if format_cpu_list(parse_cpu_list(file.read_text())) != wanted:
                file.write_text(wanted)
        except OSError as exc:
            raise cannot_pin(f"{what} {wanted}", exc) from exc


class CgroupTree:
    """All cpusets of one state directory, which ``house`` stands for: other daemons have other trees."""

    def __init__(self, hierarchy: Hierarchy, house: str) -> None:
        self._hierarchy = hierarchy
        self._top = hierarchy.mount / f"{_PREFIX}{house}"

    def cpuset(self, name: str) -> CpusetFiles:
        return CpusetFiles(self._top / name, self._hierarchy.version)

    def make(self, name: str, pinning: Pinning) -> CpusetFiles:
        """The cpuset ``name``, as ``pinning`` says. Can be done again. Raises ``CannotPin``."""
        made = self.cpuset(name)
        try:
            self._hand_on(self._hierarchy.mount)
            self._top.mkdir(exist_ok=True)
            self._hand_on(self._top)
            made.directory.mkdir(exist_ok=True)
            if self._hierarchy.version == 1:
                (made.directory / "cpuset.memory_migrate").write_text("1")
        except OSError as exc:
            raise CannotPin(
                f"no cpuset can be made in {self._hierarchy.mount}: {exc.strerror}",
                hint="the controller cpuset must be open to carmeld's cgroups: carmel doctor",
                retryable=exc.errno == errno.EBUSY,
            ) from exc
        made.set(pinning)
        return made

    def remove(self, name: str) -> None:
        """Its processes have ended; the kernel may need a moment to know. Raises ``OSError``."""
        deadline = time.monotonic() + _EMPTY_SECONDS
        directory = self.cpuset(name).directory
        while True:
            try:
                directory.rmdir()
                break
            except FileNotFoundError:
                break
            except OSError as exc:
                if exc.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(_POLL_SECONDS)
        # The last one takes the tree with it.
        with contextlib.suppress(OSError):
            self._top.rmdir()

    def sweep(self, kept: Iterable[str]) -> list[str]:
        """Remove what daemons before us left, but ``kept``. Returns what could not be, in words."""
        kept, problems = set(kept), []
        for directory in sorted(each for each in self._top.glob("*") if each.is_dir()):
            if directory.name not in kept:
                try:
                    self.remove(directory.name)
                except OSError as exc:
                    problems.append(f"the cpuset {directory} cannot be removed: {exc.strerror}")
        with contextlib.suppress(OSError):
            self._top.rmdir()
        return problems

    def _hand_on(self, directory: Path) -> None:
        """Let cgroups below ``directory`` have cpusets."""
        if self._hierarchy.version == 2:
            control = directory / "cgroup.subtree_control"
            if "cpuset" not in control.read_text().split():
                control.write_text("+cpuset")
        elif directory == self._top:
            for name in ("cpus", "mems"):
                above = (self._hierarchy.mount / f"cpuset.effective_{name}").read_text().strip()
                file = directory / f"cpuset.{name}"
                if file.read_text().strip() != above:
                    file.write_text(above)
