"""A SmartNIC's images: what disks begin with that it shows its host. They lie in its state directory."""

from __future__ import annotations

from carmel.controllers.datastore import DatastoreController, Datastores
from carmel.controllers.expiry import add_task_expiry
from carmel.controllers.image import ImageController
from carmel.controllers.image_download import ImageDownloads
from carmel.controllers.image_source import ImageSources
from carmel.controllers.image_upload import ImageUploads
from carmel.controllers.runtime import Runtime
from carmel.daemon.nicstreams import NicStreams
from carmel.daemon.processuser import process_user
from carmel.paths import Paths
from carmel.run import Runner


class NicImages:
    """Build it before the runtime starts; ``start`` before that, too."""

    def __init__(self, runtime: Runtime, paths: Paths, runner: Runner, qemu_user: str) -> None:
        self.datastores = Datastores()
        self._datastore = DatastoreController(runtime, self.datastores, paths, runner, process_user(qemu_user))
        self._images = ImageController(runtime, self.datastores, ImageSources(paths, runner))
        self.streams = NicStreams(
            ImageUploads(runtime, self.datastores, self._images), ImageDownloads(runtime, self.datastores)
        )
        add_task_expiry(runtime)

    async def start(self) -> None:
        await self._datastore.ensure_default()

    async def stop(self) -> None:
        """What is half done goes on with the next daemon."""
        await self._images.stop()

    def close(self) -> None:
        """Once nothing of the runtime works any more."""
        self.datastores.close_all()
