"""All cpusets of this host's VMs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from carmel.hypervisor.config import Pinning
from carmel.hypervisor.pinning.abilities import Means, PinningAbilities, pinning_abilities
from carmel.hypervisor.pinning.cgroups import CgroupTree
from carmel.hypervisor.pinning.cpuset import CgroupCpuset, Cpuset, NoCpuset, ScopeCpuset
from carmel.hypervisor.pinning.failures import CannotPin
from carmel.hypervisor.pinning.scope import scope_name
from carmel.paths import Paths, short_hash
from carmel.run import Runner

_log = logging.getLogger(__name__)


class Pinner:
    """Gives each VM its ``Cpuset``. Made by ``find``."""

    def __init__(self, abilities: PinningAbilities, paths: Paths, runner: Runner) -> None:
        self.abilities = abilities
        self._runner = runner
        tree = abilities.hierarchy if abilities.means is Means.CGROUP else None
        self._tree = CgroupTree(tree, short_hash(str(paths.state))) if tree is not None else None

    @classmethod
    async def find(cls, paths: Paths, runner: Runner) -> Pinner:
        return cls(await asyncio.to_thread(pinning_abilities), paths, runner)

    @property
    def pins_threads(self) -> bool:
        return self.abilities.means is not Means.NOTHING

    def require(self, pinning: Pinning) -> None:
        """Raises ``CannotPin`` (``DedicatedCPUsUnavailable``) for what this host has no means for."""
        if pinning.exclusive and self.abilities.no_dedicated is not None:
            raise CannotPin(
                f"no CPUs can be kept for a VM here: {self.abilities.no_dedicated}",
                code="DedicatedCPUsUnavailable",
                field="spec.cpu.policy",
                hint="use the policy Shared",
            )

    def start_on(self, pinning: Pinning | None) -> Sequence[int] | None:
        """The CPUs that a VM's processes are to start on; ``None``: a cpuset sees to it, or nothing can."""
        return pinning.cpus if pinning is not None and self.abilities.means is Means.AFFINITY else None

    def cpuset(self, uid: str, launch_id: str) -> Cpuset:
        """Of one run of the VM ``uid``."""
        if self._tree is not None:
            return CgroupCpuset(self._tree, short_hash(uid))
        if self.abilities.means is Means.SCOPE and self.abilities.hierarchy is not None:
            return ScopeCpuset(self._runner, self.abilities.hierarchy, scope_name(short_hash(uid), launch_id))
        return NoCpuset(self.abilities)

    async def sweep(self, uids: Iterable[str]) -> None:
        """Remove the cpusets that an earlier daemon left of VMs other than ``uids``."""
        if self._tree is not None:
            for problem in await asyncio.to_thread(self._tree.sweep, [short_hash(uid) for uid in uids]):
                _log.warning("%s", problem)
