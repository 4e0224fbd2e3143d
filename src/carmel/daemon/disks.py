"""Where the disks and kernels of VMs lie: ``ports.Disks`` out of the open datastores."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from carmel.controllers.datastore import Datastores
from carmel.controllers.virtualmachine.ports import KernelFiles
from carmel.resources.image import Image
from carmel.resources.volume import Volume


@dataclass(frozen=True, slots=True)
class DatastoreDisks:
    """Raises ``Unavailable`` (``DatastoreNotReady``) as long as a datastore is not open."""

    datastores: Datastores

    async def volume(self, volume: Volume) -> Path:
        datastore = self.datastores.get(volume.spec.datastore_ref.name)
        return datastore.directory.volume(volume.metadata.uid or "")

    async def kernel(self, image: Image) -> KernelFiles:
        datastore = self.datastores.get(image.spec.datastore_ref.name)
        kernel, initrd = datastore.images.kernel(image.metadata.uid or "")
        there = await asyncio.to_thread(initrd.is_file)
        return KernelFiles(kernel, initrd if there else None, image.status.command_line or "")
