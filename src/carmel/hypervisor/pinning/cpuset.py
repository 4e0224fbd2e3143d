"""The cpuset of one VM, by whichever means this host has."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol

from carmel.cpulist import format_cpu_list
from carmel.hypervisor.config import Pinning
from carmel.hypervisor.pinning.abilities import Hierarchy, PinningAbilities
from carmel.hypervisor.pinning.cgroups import CgroupTree
from carmel.hypervisor.pinning.failures import CannotPin
from carmel.hypervisor.pinning.scope import change_scope, start_scope
from carmel.run import Runner

_log = logging.getLogger(__name__)


class Cpuset(Protocol):
    """What holds a VM's processes together. Whatever raises, raises ``CannotPin``."""

    @property
    def gated(self) -> bool:
        """Whether processes are moved into it, so that QEMU must wait for that."""
        ...

    async def start(self, pids: Sequence[int], pinning: Pinning, title: str) -> None:
        """Put the processes of a VM that starts into it. ``title`` is for people."""
        ...

    async def change(self, pids: Sequence[int], before: Pinning, after: Pinning) -> None:
        """Another place for the running ``pids``. With ``before`` the same as ``after`` it makes sure of it."""
        ...

    async def remove(self) -> None:
        """The VM is gone."""
        ...


class CgroupCpuset:
    """A cgroup of our own."""

    gated = True

    def __init__(self, tree: CgroupTree, name: str) -> None:
        self._tree = tree
        self._name = name

    async def start(self, pids: Sequence[int], pinning: Pinning, _title: str) -> None:
        await asyncio.to_thread(self._hold, pids, pinning)

    async def change(self, pids: Sequence[int], _before: Pinning, after: Pinning) -> None:
        await asyncio.to_thread(self._hold, pids, after)

    async def remove(self) -> None:
        try:
            await asyncio.to_thread(self._tree.remove, self._name)
        except OSError as exc:
            # The next daemon's sweep takes it.
            _log.warning("the cpuset %s cannot be removed: %s", self._tree.cpuset(self._name).directory, exc.strerror)

    def _hold(self, pids: Sequence[int], pinning: Pinning) -> None:
        made = self._tree.make(self._name, pinning)
        made.place(set(pids) - set(made.holds()))


class ScopeCpuset:
    """That of the VM's scope."""

    gated = True

    def __init__(self, runner: Runner, hierarchy: Hierarchy, unit: str) -> None:
        self._runner = runner
        self._hierarchy = hierarchy
        self._unit = unit

    async def start(self, pids: Sequence[int], pinning: Pinning, title: str) -> None:
        await start_scope(self._runner, self._hierarchy, self._unit, title, pids, pinning)

    async def change(self, pids: Sequence[int], _before: Pinning, after: Pinning) -> None:
        await change_scope(self._runner, self._hierarchy, self._unit, pids[-1], after)

    async def remove(self) -> None:
        """systemd does it when the last process has gone."""


class NoCpuset:
    """None: threads have their affinity, memory the nodes that QEMU bound it to, and that is all."""

    gated = False

    def __init__(self, abilities: PinningAbilities) -> None:
        self._reason = abilities.no_dedicated or "this host has no cpusets"

    async def start(self, pids: Sequence[int], pinning: Pinning, title: str) -> None:
        """Nothing to do."""

    async def change(self, _pids: Sequence[int], before: Pinning, after: Pinning) -> None:
        if before.memory_nodes != after.memory_nodes:
            # The nodes that QEMU bound its memory to can only be changed from outside through a cpuset.
            raise CannotPin(
                f"the VM's memory cannot be moved to the nodes {format_cpu_list(after.memory_nodes)}: {self._reason}",
                hint="stop the VM and start it: it is then placed anew",
            )

    async def remove(self) -> None:
        """Nothing to do."""
