"""A daemon's part that keeps disks: a store, the runtime, and the controllers of datastores, images and volumes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carmel.controllers.datastore import DatastoreController, Datastores
from carmel.controllers.image import ImageController
from carmel.controllers.image_download import ImageDownloads
from carmel.controllers.image_source import ImageSources
from carmel.controllers.image_upload import ImageUploads
from carmel.controllers.runtime import Runtime
from carmel.controllers.volume import VolumeController
from carmel.controllers.volume_export import Exports
from carmel.errors import NotFound, Unavailable
from carmel.paths import Paths
from carmel.resources.base import JsonObject
from carmel.resources.datastore import DATASTORE
from carmel.resources.image import IMAGE
from carmel.resources.kinds import Kind
from carmel.resources.volume import VOLUME, Volume
from carmel.run import Runner, SystemRunner
from carmel.storage.drive import Drives
from carmel.storage.files import ProcessUser
from carmel.store.protocol import Store
from tests.stores import open_store

NAMESPACE = "default"
_SECONDS = 30.0


class NoSmartNics:
    """A host that has none."""

    async def prepare(self, smart_nic: str, volume: Volume) -> int:
        raise Unavailable(f"there is no SmartNIC {smart_nic}", code="WaitingForSmartNIC")

    async def release(self, smart_nic: str, volume: Volume) -> None:
        return None


@dataclass
class World:
    store: Store
    paths: Paths
    runtime: Runtime
    datastores: Datastores
    images: ImageController
    uploads: ImageUploads
    downloads: ImageDownloads

    async def create(self, kind: Kind, name: str, spec: JsonObject) -> JsonObject:
        meta: JsonObject = {"name": name}
        if kind.namespaced:
            meta["namespace"] = NAMESPACE
        body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, "spec": spec}
        return (await self.store.create(kind, body)).json()

    async def image(self, name: str, source: JsonObject) -> JsonObject:
        return await self.create(IMAGE, name, {"source": source})

    async def volume(self, name: str, **spec: Any) -> JsonObject:
        return await self.create(VOLUME, name, spec)

    async def get(self, kind: Kind, name: str) -> JsonObject:
        return (await self.store.get(kind, NAMESPACE if kind.namespaced else None, name)).json()

    async def change(self, kind: Kind, name: str, edit: Callable[[JsonObject], object]) -> None:
        """Edit all but the status, whoever else writes meanwhile."""
        found = await self.get(kind, name)
        del found["metadata"]["resourceVersion"]
        edit(found)
        await self.store.replace(kind, found)

    async def delete(self, kind: Kind, name: str) -> None:
        await self.store.delete(kind, NAMESPACE if kind.namespaced else None, name)

    async def until(self, kind: Kind, name: str, so: Callable[[JsonObject], Any]) -> JsonObject:
        """The object once ``so`` holds of it."""
        return (await self._until(kind, name, lambda found: found is not None and so(found))) or {}

    async def until_gone(self, kind: Kind, name: str) -> None:
        await self._until(kind, name, lambda found: found is None)

    async def until_phase(self, kind: Kind, name: str, phase: str) -> JsonObject:
        return await self.until(kind, name, lambda found: found.get("status", {}).get("phase") == phase)

    async def _until(self, kind: Kind, name: str, so: Callable[[JsonObject | None], Any]) -> JsonObject | None:
        last: JsonObject | None = None
        try:
            async with asyncio.timeout(_SECONDS), self.store.watch(kind, send_initial=True) as events:
                while True:
                    try:
                        last = await self.get(kind, name)
                    except NotFound:
                        last = None
                    if so(last):
                        return last
                    await anext(events)
        except TimeoutError:
            raise AssertionError(f"{kind.kind} {name} is still {last}") from None

    def datastore_files(self) -> set[str]:
        root = self.paths.default_datastore
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}

    @property
    def tmp(self) -> list[str]:
        return sorted(path.name for path in (self.paths.default_datastore / "tmp").iterdir())


@asynccontextmanager
async def open_world(
    root: Path,
    runner: Runner | None = None,
    sources: Callable[[Paths, Runner], ImageSources] = ImageSources,
    user: ProcessUser | None = None,
    drives: Drives | None = None,
) -> AsyncIterator[World]:
    """All of it, on what an earlier world left in ``root``."""
    paths = Paths(state=root / "state", runtime=root / "run", cache=root / "cache")
    paths.state.mkdir(exist_ok=True)
    used = runner or SystemRunner()
    async with open_store(root) as store:
        runtime = Runtime(store, "test")
        datastores = Datastores()
        datastore_controller = DatastoreController(runtime, datastores, paths, used, user, drives)
        images = ImageController(runtime, datastores, sources(paths, used))
        VolumeController(runtime, datastores, Exports(datastores, NoSmartNics(), used, paths.nbd_keys, user))
        uploads, downloads = ImageUploads(runtime, datastores, images), ImageDownloads(runtime, datastores)
        world = World(store, paths, runtime, datastores, images, uploads, downloads)
        await datastore_controller.ensure_default()
        await runtime.start()
        try:
            await world.until(DATASTORE, "local", lambda found: found.get("status", {}).get("freeBytes"))
            yield world
        finally:
            await images.stop()
            await runtime.stop()
            datastores.close_all()
