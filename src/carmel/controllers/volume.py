"""Volumes: made from images or empty, grown, measured, and removed when nothing uses them.

A volume that comes from an image stands on it for good. So that the image cannot go in the meantime, the claim
(``status.imageUID``) is stored first, then the image is read again, then the disk is made; the image's controller
reads the claims after the image's deletion was stored. One of the two sees the other.

A running VM's disk is not grown: QEMU holds the lock on its file. The condition ``Resized`` says so until it is off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from carmel.controllers.datastore import Datastores, OpenDatastore
from carmel.controllers.runtime import (
    ControllerSpec,
    EventKind,
    Key,
    Resources,
    Runtime,
    Watch,
    condition,
    error_message,
    key_of,
    remove_condition,
    set_conditions,
)
from carmel.controllers.volume_export import Exports
from carmel.errors import CarmelError, InternalError, NotFound, Refused, Unavailable
from carmel.resources.base import JsonObject, StatusError
from carmel.resources.datastore import DATASTORE
from carmel.resources.image import IMAGE, Image, ImagePhase, ImageType
from carmel.resources.smartnic import SMART_NIC
from carmel.resources.virtualmachine import VIRTUAL_MACHINE, VirtualMachine
from carmel.resources.volume import VOLUME, Volume, VolumePhase
from carmel.storage.volumes import StoredVolume
from carmel.units import MIB, parse_bytes

FINALIZER = "carmel.dev/volume"
_MEASURE_SECONDS = 300.0
_AGAIN_SECONDS = 5.0
_VOLUME_INUSE = "VolumeInUse"
_WAITING = ("ImageNotFound", "ImageNotReady")
"""Not a failure: the volume is made as soon as its image is."""


class VolumeController:
    def __init__(self, runtime: Runtime, datastores: Datastores, exports: Exports) -> None:
        self._runtime = runtime
        self._datastores = datastores
        self._exports = exports
        self._resources: Resources[Volume] = runtime.resources(VOLUME, Volume, manager="volume-controller")
        self._images = runtime.resources(IMAGE, Image)
        self._machines = runtime.resources(VIRTUAL_MACHINE, VirtualMachine)
        volumes = runtime.informer(VOLUME)
        volumes.add_index("image", _image_of)
        volumes.add_index("datastore", _datastore_of)
        volumes.add_index("export", lambda volume: [""] if volume["spec"].get("export") else [])
        runtime.add(
            ControllerSpec(
                "volume",
                VOLUME,
                self.reconcile,
                watches=(
                    Watch(IMAGE, lambda image: volumes.indexed("image", _qualified(image))),
                    Watch(DATASTORE, lambda store: volumes.indexed("datastore", store["metadata"]["name"])),
                    Watch(VIRTUAL_MACHINE, _volumes_of),
                    Watch(SMART_NIC, lambda _nic: volumes.indexed("export", "")),
                ),
                on_failure=self._show,
            )
        )

    async def reconcile(self, key: Key) -> float | None:
        volume = await self._resources.find(key)
        if volume is None:
            return None
        if volume.metadata.deletion_timestamp is not None:
            return await self._delete(volume)
        volume = await self._resources.add_finalizer(volume, FINALIZER)
        if volume.spec.export is not None:
            try:
                capacity = await self._exports.capacity(volume, await self._resources.list())
            except Unavailable as error:
                # Its server comes when it comes, and who is to boot from it waits: no longer and longer pauses.
                await self._show(key, error, 1)
                return _AGAIN_SECONDS
            await self._show_ready(volume, StoredVolume(capacity, 0, None), None)
            return _MEASURE_SECONDS
        datastore = self._datastores.get(volume.spec.datastore_ref.name)
        stored = await asyncio.to_thread(datastore.volumes.find, _uid(volume))
        if stored is None:
            stored = await self._create(volume, datastore)
        refusal: CarmelError | None = None
        if volume.spec.size is not None and stored.capacity < parse_bytes(volume.spec.size):
            stored, refusal = await self._grow(volume, datastore, stored)
        await self._show_ready(volume, stored, refusal)
        if refusal is not None and refusal.code != _VOLUME_INUSE and refusal.retryable:
            raise refusal
        return _MEASURE_SECONDS

    # -- steps --------------------------------------------------------------------------------------------------
    async def _create(self, volume: Volume, datastore: OpenDatastore) -> StoredVolume:
        if volume.status.phase is VolumePhase.READY or volume.status.capacity_bytes is not None:
            # Never made anew: an empty disk in the place of a lost one would hide the loss.
            raise Refused(
                "the volume's file is not there any more",
                code="DiskMissing",
                hint="bring the file back into the datastore, or delete the volume",
            )
        image_uid = None
        if volume.spec.image_ref is not None:
            image = await self._ready_image(volume)
            image_uid = image.metadata.uid
            volume = await self._claim(volume, image_uid)
            if (await self._ready_image(volume)).metadata.uid != image_uid:
                raise Unavailable("the image was made anew in the meantime", code="ImageNotReady")
        size = None if volume.spec.size is None else parse_bytes(volume.spec.size)
        return await datastore.volumes.create(_uid(volume), size, image_uid)

    async def _ready_image(self, volume: Volume) -> Image:
        assert volume.spec.image_ref is not None
        name = volume.spec.image_ref.name
        try:
            image = await self._images.get(Key(volume.metadata.namespace, name))
        except NotFound:
            raise Refused(
                f"there is no image {name} in this namespace",
                code="ImageNotFound",
                hint="make the image: the volume is then made by itself",
                field="spec.imageRef.name",
            ) from None
        if image.metadata.deletion_timestamp is not None:
            await self._claim(volume, None)
            raise Refused(f"the image {name} is being deleted", code="ImageNotReady", field="spec.imageRef.name")
        if image.status.phase is not ImagePhase.READY:
            raise Refused(
                f"the image {name} is not ready",
                code="ImageNotReady",
                hint=f"carmel describe image {name} says how far it is",
                field="spec.imageRef.name",
            )
        if image.status.type is not ImageType.DISK:
            raise Refused(
                f"the image {name} holds a kernel, not a disk",
                code="ImageIsKernel",
                hint="name it in spec.firmware.imageRef of a VM",
                field="spec.imageRef.name",
            )
        if image.spec.datastore_ref != volume.spec.datastore_ref:
            raise Refused(
                f"the image {name} lies on datastore {image.spec.datastore_ref.name}",
                code="ImageOnOtherDatastore",
                hint="a volume lies on the datastore of its image",
                field="spec.datastoreRef.name",
            )
        return image

    async def _claim(self, volume: Volume, image_uid: str | None) -> Volume:
        def change(one: Volume) -> None:
            one.status.image_uid = image_uid
            one.status.phase = VolumePhase.CREATING if image_uid else VolumePhase.PENDING

        return await self._resources.update_status(volume, change)

    async def _grow(
        self, volume: Volume, datastore: OpenDatastore, stored: StoredVolume
    ) -> tuple[StoredVolume, CarmelError | None]:
        assert volume.spec.size is not None
        try:
            await datastore.volumes.grow(_uid(volume), parse_bytes(volume.spec.size))
        except CarmelError as error:
            return stored, error
        message = f"grown to {volume.spec.size}"
        self._runtime.events.record(VOLUME, volume, EventKind.NORMAL, "Resized", message)
        return await asyncio.to_thread(datastore.volumes.find, _uid(volume)) or stored, None

    async def _delete(self, volume: Volume) -> float | None:
        user = volume.status.used_by
        if user is not None and await self._machines.find(Key(volume.metadata.namespace, user)) is not None:
            error = Refused(
                f"the VM {user} uses this volume",
                code=_VOLUME_INUSE,
                hint="it is removed when the VM is deleted or lets it go",
            )
            await self._show(key_of(volume), error, 1)
            return None
        if volume.spec.export is not None:
            await self._exports.release(volume)
        else:
            datastore = self._datastores.get(volume.spec.datastore_ref.name)
            await datastore.directory.remove_volume(_uid(volume))
        await self._resources.remove_finalizer(volume, FINALIZER)
        return None

    # -- status -------------------------------------------------------------------------------------------------
    async def _show_ready(self, volume: Volume, stored: StoredVolume, refusal: CarmelError | None) -> None:
        def change(one: Volume) -> None:
            status, generation = one.status, one.metadata.generation
            status.observed_generation = generation
            status.phase = VolumePhase.READY
            status.capacity_bytes = stored.capacity
            # Whole MiB: it changes with every write of the guest, and each change is a write to the store.
            exported = one.spec.export is not None
            status.allocated_bytes = None if exported else -(-stored.allocated // MIB) * MIB
            status.format = "raw" if exported else "qcow2"
            status.image_uid = stored.image_uid
            status.error = None
            conditions = [condition("Ready", "True", "Created", generation=generation)]
            if refusal is not None:
                message = error_message(refusal)
                conditions.append(condition("Resized", "False", refusal.code, message, generation=generation))
            else:
                remove_condition(status, "Resized")
            set_conditions(status, conditions, self._runtime.clock.now())

        await self._resources.update_status(volume, change)

    async def _show(self, key: Key, error: CarmelError, _count: int) -> None:
        volume = await self._resources.find(key)
        if volume is None:
            return
        waiting = error.retryable or error.code in _WAITING

        def change(one: Volume) -> None:
            status, generation = one.status, one.metadata.generation
            status.observed_generation = generation
            if one.metadata.deletion_timestamp is not None:
                status.phase = VolumePhase.DELETING
            else:
                status.phase = VolumePhase.PENDING if waiting else VolumePhase.FAILED
            status.error = StatusError(**error.to_dict())
            shown = condition("Ready", "False", error.code, error_message(error), generation=generation)
            set_conditions(status, [shown], self._runtime.clock.now())

        await self._resources.update_status(volume, change)
        if error.code not in _WAITING:
            self._runtime.events.record(VOLUME, volume, EventKind.WARNING, error.code, error_message(error))


def _uid(volume: Volume) -> str:
    if volume.metadata.uid is None:
        raise InternalError(f"the volume {volume.metadata.name} has no uid")
    return volume.metadata.uid


# -- which volumes a change elsewhere concerns ----------------------------------------------------------------------
def _qualified(obj: JsonObject) -> str:
    return f"{obj['metadata'].get('namespace')}/{obj['metadata']['name']}"


def _image_of(volume: JsonObject) -> Iterable[str]:
    reference = volume["spec"].get("imageRef")
    return [f"{volume['metadata'].get('namespace')}/{reference['name']}"] if reference else []


def _datastore_of(volume: JsonObject) -> Iterable[str]:
    reference = volume["spec"].get("datastoreRef")
    return [reference["name"]] if reference else []


def _volumes_of(machine: JsonObject) -> Iterable[Key]:
    disks = (machine.get("status") or {}).get("disks") or []
    return [Key(machine["metadata"].get("namespace"), disk["volumeName"]) for disk in disks]
