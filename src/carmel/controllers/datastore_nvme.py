"""Datastores on NVMe namespaces: mounted where the others lie, below the state directory."""

from __future__ import annotations

from pathlib import Path

from carmel.controllers.runtime import Resources, Runtime
from carmel.errors import Refused
from carmel.resources.datastore import NVMeDatastore
from carmel.resources.smartnic import SMART_NIC, ShownNamespace, SmartNIC
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
        """The device's path. Raises what ``Drives.mount`` says, and ``Refused`` (``NamespaceOfAVM``)."""
        shown = await self._shown_by(drive.serial)
        if shown is not None and shown.owner is not None:
            raise Refused(
                f"the SmartNIC's namespace {shown.name} is for the VM {shown.owner.namespace}/{shown.owner.name}",
                code="NamespaceOfAVM",
                hint="a namespace is a VM's or the host's, not both",
                field="spec.nvme.serial",
                retryable=True,
            )
        space = await self._drives.mount(drive.serial, drive.namespace_id, self.place(name))
        if shown is not None and shown.stall_seconds is not None:
            await self._drives.be_patient(space, shown.stall_seconds + _MORE_SECONDS)
        return space.device

    async def unmount(self, name: str) -> None:
        await self._drives.unmount(self.place(name))

    async def _shown_by(self, serial: str) -> ShownNamespace | None:
        """The SmartNIC's namespace that a function with this serial number shows."""
        for nic in await self._nics.list():
            functions = {one.id for one in nic.status.functions or [] if one.serial == serial}
            for namespace in nic.status.namespaces or []:
                if namespace.function in functions:
                    return namespace
        return None
