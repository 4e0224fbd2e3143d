"""Where the disks and kernels of VMs lie: ``ports.Disks`` out of the open datastores."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from carmel.controllers.datastore import Datastores
from carmel.controllers.datastore_disks import SmartNicStore
from carmel.controllers.offload import FunctionDisks
from carmel.controllers.virtualmachine.ports import DiskSource, FunctionSource, KernelFiles, NbdSource
from carmel.resources.image import Image
from carmel.resources.volume import Volume


@dataclass(frozen=True, slots=True)
class DatastoreDisks:
    """Raises ``Unavailable`` (``DatastoreNotReady``) as long as a datastore is not open."""

    datastores: Datastores
    functions: FunctionDisks

    async def volume(self, volume: Volume, vm: str) -> DiskSource:
        name = volume.spec.datastore_ref.name
        if volume.spec.export is None:
            return self.datastores.get(name).directory.volume(volume.metadata.uid or "")
        server = self.datastores.server(name)
        if isinstance(server, SmartNicStore):
            return FunctionSource(await self.functions.give(server.smart_nic, volume, vm))
        export = server.export(volume.spec.export)
        return NbdSource(export.host, export.port, export.name, server.psk, server.spec.stall_seconds)

    async def kernel(self, image: Image) -> KernelFiles:
        datastore = self.datastores.get(image.spec.datastore_ref.name)
        kernel, initrd = datastore.images.kernel(image.metadata.uid or "")
        there = await asyncio.to_thread(initrd.is_file)
        return KernelFiles(kernel, initrd if there else None, image.status.command_line or "")
