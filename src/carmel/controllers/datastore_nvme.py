"""Datastores on NVMe namespaces: mounted where the others lie, below the state directory."""

from __future__ import annotations

from pathlib import Path

from carmel.controllers.runtime import Resources, Runtime
from carmel.resources.datastore import NVMeDatastore
from carmel.resources.smartnic import SMART_NIC, SmartNIC
from carmel.storage.drive import Drives

_MORE_SECONDS = 120
"""A SmartNIC that starts anew: it is away for its stall, and takes this long at most to show its namespaces again."""


class NvmePlaces:
    """``folder`` holds the directories of datastores, by name."""

    def __init__(self, runtime: Runtime, drives: Drives, folder: Path) -> None:
        self._nics: Resources[SmartNIC] = runtime.resources(SMART_NIC, SmartNIC)
        self._drives = drives
        self._folder = folder

    def place(self, name: str) -> Path:
        return self._folder / name

    async def mount(self, name: str, drive: NVMeDatastore) -> str:
        """The device's path. Raises what ``Drives.mount`` says."""
        space = await self._drives.mount(drive.serial, drive.namespace_id, self.place(name))
        stall = await self._stall_of(drive.serial)
        if stall is not None:
            await self._drives.be_patient(space, stall + _MORE_SECONDS)
        return space.device

    async def unmount(self, name: str) -> None:
        await self._drives.unmount(self.place(name))

    async def _stall_of(self, serial: str) -> int | None:
        """How long a SmartNIC's namespace waits for its blocks; ``None``: it is no SmartNIC's."""
        for nic in await self._nics.list():
            functions = {one.id for one in nic.status.functions or [] if one.serial == serial}
            for namespace in nic.status.namespaces or []:
                if namespace.function in functions:
                    return namespace.stall_seconds
        return None
