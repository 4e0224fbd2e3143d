"""Datastores: opens the directory of each, says how full it is, and keeps it while something lies in it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from carmel.controllers.datastore_disks import DiskServer, DiskServers
from carmel.controllers.datastore_nvme import NvmePlaces
from carmel.controllers.runtime import ControllerSpec, EventKind, Key, Resources, Runtime, condition, set_conditions
from carmel.errors import AlreadyExists, CarmelError, Refused, Unavailable
from carmel.paths import Paths
from carmel.resources.base import ObjectMeta
from carmel.resources.datastore import DATASTORE, Datastore, DatastoreType
from carmel.resources.image import IMAGE, Image
from carmel.resources.volume import VOLUME, Volume
from carmel.run import Runner
from carmel.storage.datastore import DirectoryDatastore
from carmel.storage.drive import Drives
from carmel.storage.files import ProcessUser
from carmel.storage.images import ImageStore
from carmel.storage.opening import open_datastore
from carmel.storage.volumes import VolumeStore

DEFAULT = "local"
FINALIZER = "carmel.dev/datastore"
_LOOK_SECONDS = 60.0
_LOOK_FOR_DEVICE_SECONDS = 5.0
_ROUND_BYTES = 64 * 1024 * 1024
"""Free space is told in steps of this: it changes all the time, and every step is a write to the store."""


@dataclass(frozen=True, slots=True)
class OpenDatastore:
    """A datastore that can be used."""

    directory: DirectoryDatastore
    images: ImageStore
    volumes: VolumeStore


class Datastores:
    """The datastores that are open, by name: what the controllers of images, volumes and VMs find disks with."""

    def __init__(self) -> None:
        self._open: dict[str, OpenDatastore] = {}
        self._servers: dict[str, DiskServer] = {}

    def get(self, name: str) -> OpenDatastore:
        """One that holds files. Raises ``Unavailable`` (``DatastoreNotReady``) and ``Refused``
        (``DatastoreHoldsNoFiles``)."""
        found = self._open.get(name)
        if found is not None:
            return found
        if name in self._servers:
            raise Refused(
                f"the datastore {name} offers whole disks: nothing can be made in it",
                code="DatastoreHoldsNoFiles",
                hint="a Volume on it names one of its disks in spec.export",
                field="spec.datastoreRef.name",
            )
        raise _not_ready(name)

    def server(self, name: str) -> DiskServer:
        """One that offers whole disks. Raises ``Unavailable`` (``DatastoreNotReady``) and ``Refused``
        (``DatastoreExportsNothing``)."""
        found = self._servers.get(name)
        if found is not None:
            return found
        if name in self._open:
            raise Refused(
                f"the datastore {name} exports nothing: it holds files",
                code="DatastoreExportsNothing",
                hint="leave spec.export out, or name a datastore of type NBD or SmartNIC",
                field="spec.export",
            )
        raise _not_ready(name)

    def find(self, name: str) -> OpenDatastore | None:
        return self._open.get(name)

    def put(self, name: str, datastore: OpenDatastore) -> None:
        self._open[name] = datastore

    def put_server(self, name: str, server: DiskServer) -> None:
        self._servers[name] = server

    def close(self, name: str) -> None:
        self._servers.pop(name, None)
        found = self._open.pop(name, None)
        if found is not None:
            found.directory.close()

    def close_all(self) -> None:
        """At the daemon's end."""
        for name in [*self._open, *self._servers]:
            self.close(name)


def _not_ready(name: str) -> Unavailable:
    return Unavailable(
        f"the datastore {name} is not ready",
        code="DatastoreNotReady",
        hint=f"carmel describe datastore {name} says why",
    )


class DatastoreController:
    """``user`` is QEMU's unprivileged user where the daemon is root."""

    def __init__(
        self,
        runtime: Runtime,
        datastores: Datastores,
        paths: Paths,
        runner: Runner,
        user: ProcessUser | None = None,
        drives: Drives | None = None,
    ) -> None:
        self._runtime = runtime
        self._datastores = datastores
        self._paths = paths
        self._runner = runner
        self._user = user
        self._drives = NvmePlaces(runtime, drives or Drives(runner), paths.default_datastore.parent)
        self._servers = DiskServers(runtime)
        self._resources: Resources[Datastore] = runtime.resources(DATASTORE, Datastore, manager="datastore-controller")
        self._images = runtime.resources(IMAGE, Image)
        self._volumes = runtime.resources(VOLUME, Volume)
        runtime.add(
            ControllerSpec(
                "datastore",
                DATASTORE,
                self.reconcile,
                workers=1,
                on_failure=runtime.show_failure(self._resources),
            )
        )

    async def ensure_default(self) -> None:
        """Make the datastore ``local`` if there is none. To be called when the daemon starts."""
        try:
            await self._resources.create(Datastore(metadata=ObjectMeta(name=DEFAULT)))
        except AlreadyExists:
            return

    async def reconcile(self, key: Key) -> float | None:
        datastore = await self._resources.find(key)
        if datastore is None:
            self._datastores.close(key.name)
            return None
        if datastore.metadata.deletion_timestamp is not None:
            return await self._delete(datastore)
        datastore = await self._resources.add_finalizer(datastore, FINALIZER)
        try:
            if datastore.spec.type in {DatastoreType.NBD, DatastoreType.SMART_NIC}:
                return await self._serve(datastore)
            return await self._keep_open(datastore)
        except CarmelError as error:
            self._datastores.close(key.name)
            await self._runtime.show_failure(self._resources)(key, error, 1)
            # Whatever it is, only something outside the store can mend it: a mount, a directory, another daemon.
            return _LOOK_SECONDS if datastore.spec.type is DatastoreType.DIRECTORY else _LOOK_FOR_DEVICE_SECONDS

    async def _serve(self, datastore: Datastore) -> float | None:
        self._datastores.put_server(datastore.metadata.name, await self._servers.open(datastore.spec))

        def change(one: Datastore) -> None:
            one.status.observed_generation = one.metadata.generation
            ready = condition("Ready", "True", "Open", generation=one.metadata.generation)
            set_conditions(one.status, [ready], self._runtime.clock.now())

        await self._resources.update_status(datastore, change)
        return _LOOK_SECONDS

    async def _keep_open(self, datastore: Datastore) -> float | None:
        name, drive = datastore.metadata.name, datastore.spec.nvme
        opened = self._datastores.find(name)
        try:
            opened = opened or await self._open(datastore)
            await asyncio.to_thread(opened.directory.require_there)
            await asyncio.to_thread(opened.directory.require_writable)
        except CarmelError as error:
            if drive is not None and error.code == "DatastoreReadOnly":
                # Mounted anew it is checked, and its journal replayed: the next look does that.
                self._datastores.close(name)
                await self._drives.unmount(name)
            raise
        # Again each time: the SmartNIC whose namespace it is may have changed how long that waits.
        device = await self._drives.mount(name, drive) if drive is not None else None
        capacity = await asyncio.to_thread(opened.directory.capacity)

        def change(one: Datastore) -> None:
            one.status.observed_generation = one.metadata.generation
            one.status.capacity_bytes = capacity.capacity_bytes
            one.status.free_bytes = capacity.free_bytes // _ROUND_BYTES * _ROUND_BYTES
            one.status.device = device
            ready = condition("Ready", "True", "Open", generation=one.metadata.generation)
            set_conditions(one.status, [ready], self._runtime.clock.now())

        await self._resources.update_status(datastore, change)
        return _LOOK_SECONDS

    async def _open(self, datastore: Datastore) -> OpenDatastore:
        name, drive = datastore.metadata.name, datastore.spec.nvme
        if drive is not None:
            await self._drives.mount(name, drive)
        path = datastore.spec.directory.path
        directory = await asyncio.to_thread(
            open_datastore,
            Path(path) if path is not None else self._paths.default_datastore.parent / name,
            user=self._user,
            trusted=path is None,
            must_exist=datastore.status.capacity_bytes is not None,
        )
        try:
            images = [image.metadata.uid or "" for image in await self._images.list()]
            left_over = await directory.sweep(images)
        except BaseException:
            directory.close()
            raise
        if left_over:
            message = f"removed {left_over} things that an earlier daemon left half made"
            self._runtime.events.record(DATASTORE, datastore, EventKind.NORMAL, "LeftoversRemoved", message)
        opened = OpenDatastore(directory, ImageStore(directory, self._runner), VolumeStore(directory, self._runner))
        self._datastores.put(name, opened)
        return opened

    async def _delete(self, datastore: Datastore) -> float | None:
        """Directory, drive and server stay as they are: only what Carmel knows of them goes."""
        name = datastore.metadata.name
        users = [
            *(f"volume {one.metadata.namespace}/{one.metadata.name}" for one in await self._volumes.list()
              if one.spec.datastore_ref.name == name),
            *(f"image {one.metadata.namespace}/{one.metadata.name}" for one in await self._images.list()
              if one.spec.datastore_ref.name == name),
        ]  # fmt: skip
        if not users:
            self._datastores.close(name)
            if datastore.spec.type is DatastoreType.NVME:
                await self._drives.unmount(name)
            await self._resources.remove_finalizer(datastore, FINALIZER)
            return None

        def change(one: Datastore) -> None:
            listed = ", ".join(users[:5]) + (f" and {len(users) - 5} more" if len(users) > 5 else "")
            blocked = condition("Deletable", "False", "DatastoreInUse", f"it still holds {listed}")
            set_conditions(one.status, [blocked], self._runtime.clock.now())

        await self._resources.update_status(datastore, change)
        return 5.0
