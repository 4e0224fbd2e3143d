"""What a VM's controller asks of storage: where disks and kernels lie, and cloud-init seeds."""

from __future__ import annotations

import asyncio
from pathlib import Path

from carmel.controllers.datastore import Datastores
from carmel.controllers.virtualmachine.ports import KernelFiles, Seed
from carmel.errors import Refused
from carmel.resources.image import Image, ImageType
from carmel.resources.volume import Volume
from carmel.storage import cloudinit


class DatastoreDisks:
    """Fulfils ``Disks``. Raises ``Unavailable`` (``DatastoreNotReady``), ``Refused`` (``DiskMissing``)."""

    def __init__(self, datastores: Datastores) -> None:
        self._datastores = datastores

    async def volume(self, volume: Volume) -> Path:
        datastore = self._datastores.get(volume.spec.datastore_ref.name)
        path = datastore.directory.volume(volume.metadata.uid or "")
        if not await asyncio.to_thread(path.is_file):
            raise Refused(
                f"the file of volume {volume.metadata.name} is not there any more",
                code="DiskMissing",
                hint="bring it back into the datastore, or delete the volume",
            )
        return path

    async def kernel(self, image: Image) -> KernelFiles:
        datastore = self._datastores.get(image.spec.datastore_ref.name)
        stored = await asyncio.to_thread(datastore.images.find, image.metadata.uid or "")
        if stored is None or stored.type is not ImageType.KERNEL:
            raise Refused(
                f"the image {image.metadata.name} holds no kernel",
                code="NotAKernel",
                hint="DirectKernel boots an image of type Kernel, such as micro",
                field="spec.firmware.imageRef.name",
            )
        kernel, initrd = datastore.images.kernel(image.metadata.uid or "")
        return KernelFiles(kernel, initrd, stored.command_line or "")


class CloudInitSeeds:
    """Fulfils ``Seeds``."""

    async def write(self, seed: Seed, destination: Path) -> None:
        values = cloudinit.Seed(
            instance_id=seed.instance_id,
            host_name=seed.host_name,
            user_data=seed.user_data,
            network_data=seed.network_data,
            ssh_authorized_keys=seed.ssh_authorized_keys,
        )
        await asyncio.to_thread(cloudinit.write_seed, values, destination)
