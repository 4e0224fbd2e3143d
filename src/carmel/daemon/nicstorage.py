"""A SmartNIC's storage: which model shows namespaces, the controllers of them, and images that they begin with."""

from __future__ import annotations

import asyncio
from pathlib import Path

from carmel.controllers.nic.facts import NicFacts
from carmel.controllers.nic.nvme import ExportKeys, NvmeNamespaceController, ShownNamespaces
from carmel.controllers.nic.nvme.blockpaths import BlockPaths
from carmel.controllers.nic.nvme.filling import Fillings
from carmel.controllers.runtime import Runtime
from carmel.daemon.nicimages import NicImages
from carmel.hypervisor.account import Account
from carmel.hypervisor.processes import process_table
from carmel.paths import Paths
from carmel.run import Runner
from carmel.smartnic.models.emulated import EmulatedNic
from carmel.smartnic.models.model import SmartNicModel
from carmel.smartnic.nvme.emulated import EmulatedNvme
from carmel.smartnic.nvme.export import Listen
from carmel.smartnic.nvme.fabrics import host_nqn
from carmel.smartnic.nvme.functions import NvmeFunctions
from carmel.smartnic.nvme.initiator import Initiator
from carmel.smartnic.nvme.snapnvme import SnapNvme


class NicStorage:
    """Build it before the runtime starts; ``adopt`` before that, too. ``exports``: where an emulated NIC exports."""

    def __init__(
        self,
        runtime: Runtime,
        facts: NicFacts,
        model: SmartNicModel,
        paths: Paths,
        runner: Runner,
        qemu_user: str,
        exports: Listen,
    ) -> None:
        keys = ExportKeys(runtime)
        self._functions: NvmeFunctions
        if isinstance(model, EmulatedNic):
            self._functions = EmulatedNvme(
                paths,
                runner,
                process_table(),
                lambda: Account.for_daemon(qemu_user),
                exports,
                keys.psk,
                self._ended,
            )
        else:
            self._functions = SnapNvme()
        self.images = NicImages(runtime, paths, runner, qemu_user)
        self._fillings = Fillings(runtime, self.images.datastores)
        initiator, ours = Initiator(runner), host_nqn(model.serial or facts.name)
        ways = BlockPaths(initiator, keys, ours, runtime.clock, Path("/"))
        self._namespaces = NvmeNamespaceController(runtime, self._functions, ways, self._fillings)
        ShownNamespaces(runtime, facts.name, self._functions)

    def _ended(self, uid: str) -> None:
        self._namespaces.ended(uid)

    async def adopt(self) -> None:
        """What earlier daemons showed is shown on."""
        await self.images.start()
        await self._namespaces.adopt()

    async def stop_copying(self) -> None:
        """Before the runtime ends: what is half copied is copied by the next daemon."""
        await self.images.stop()
        await self._fillings.stop_all()

    async def stop(self) -> None:
        """What is shown stays."""
        await asyncio.shield(self._functions.aclose())
        self.images.close()
