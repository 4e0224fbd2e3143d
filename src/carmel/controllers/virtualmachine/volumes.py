"""The volumes of a VM: made, attached to it alone, let go, deleted."""

from __future__ import annotations

from collections.abc import Iterable

from carmel.controllers.runtime import Key, Resources
from carmel.controllers.virtualmachine.observed import VM_LABEL, VM_UID_LABEL
from carmel.controllers.virtualmachine.planning import default_policy
from carmel.errors import AlreadyExists, Conflict, NotFound
from carmel.resources.base import ObjectMeta, OwnerReference
from carmel.resources.selectors import Requirement, Selector
from carmel.resources.virtualmachine import VIRTUAL_MACHINE, DeletePolicy, Disk, VirtualMachine
from carmel.resources.volume import Volume, VolumeSpec


def volume_name(vm: VirtualMachine, disk: Disk) -> str:
    return disk.volume_ref.name if disk.volume_ref is not None else f"{vm.metadata.name}-{disk.name}"


class VolumesOfMachines:
    """Writes Volume resources on behalf of VMs. Each call says what is to be, and may be repeated."""

    def __init__(self, volumes: Resources[Volume]) -> None:
        self._volumes = volumes

    async def create(self, vm: VirtualMachine, disk: Disk, name: str) -> None:
        uid = vm.metadata.uid or ""
        owner = OwnerReference(
            api_version=VIRTUAL_MACHINE.api_version, kind=VIRTUAL_MACHINE.kind, name=vm.metadata.name, uid=uid
        )
        volume = Volume(
            metadata=ObjectMeta(
                name=name,
                namespace=vm.metadata.namespace,
                labels={VM_LABEL: vm.metadata.name, VM_UID_LABEL: uid},
                # An owner takes its volumes along (garbage collection): only those that are to go with it.
                owner_references=[owner] if default_policy(disk) is DeletePolicy.DELETE else None,
            ),
            spec=VolumeSpec(size=disk.size, image_ref=disk.image_ref),
        )
        try:
            await self._volumes.create(volume)
        except AlreadyExists:
            return

    async def attach(self, vm: VirtualMachine, name: str, *, stale_holder: str | None) -> None:
        """Say in the volume that ``vm`` has it, in place of nobody or of ``stale_holder``, a VM that is no more.

        Raises ``Conflict`` when another VM was faster.
        """

        def take(volume: Volume) -> None:
            holder = volume.status.used_by
            if holder not in {None, vm.metadata.name, stale_holder}:
                raise Conflict(f"Volume {name} was just attached to VirtualMachine {holder}", code="VolumeInUse")
            volume.status.used_by = vm.metadata.name

        volume = await self._volumes.find(Key(vm.metadata.namespace, name))
        if volume is not None:
            await self._volumes.update_status(volume, take)

    async def detach(self, vm: VirtualMachine, name: str) -> None:
        def let_go(volume: Volume) -> None:
            if volume.status.used_by == vm.metadata.name:
                volume.status.used_by = None

        volume = await self._volumes.find(Key(vm.metadata.namespace, name))
        if volume is not None:
            try:
                await self._volumes.update_status(volume, let_go)
            except NotFound:
                return

    async def release_all(self, vm: VirtualMachine, attached: Iterable[str]) -> None:
        """The VM goes for good: let go of ``attached``, delete or keep those that were made for it by their policy."""
        for name in attached:
            await self.detach(vm, name)
        policies = {volume_name(vm, disk): default_policy(disk) for disk in vm.spec.disks}
        ours = Selector(labels=(Requirement(VM_UID_LABEL, frozenset({vm.metadata.uid or ""})),))
        for volume in await self._volumes.list(vm.metadata.namespace, ours):
            await self.detach(vm, volume.metadata.name)
            # A disk that left the spec goes as it was made to go.
            owned = any(one.uid == vm.metadata.uid for one in volume.metadata.owner_references or [])
            fallback = DeletePolicy.DELETE if owned else DeletePolicy.RETAIN
            if policies.get(volume.metadata.name, fallback) is DeletePolicy.DELETE:
                await self._volumes.delete(volume)
            else:
                await self._keep(volume, vm.metadata.uid)

    async def _keep(self, volume: Volume, uid: str | None) -> None:
        """Without its owner the volume outlives it, and is anybody's to name in ``volumeRef``."""

        def cut(one: Volume) -> None:
            one.metadata.owner_references = [
                owner for owner in one.metadata.owner_references or [] if owner.uid != uid
            ] or None
            one.metadata.labels = {
                key: value for key, value in (one.metadata.labels or {}).items() if key != VM_UID_LABEL
            } or None

        try:
            await self._volumes.update(volume, cut)
        except NotFound:
            return
