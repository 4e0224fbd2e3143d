"""Gets everything together that a start needs, in an order that a kill at any point leaves nothing half done."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from carmel.controllers.placement import Places, Recorded
from carmel.controllers.runtime import Key
from carmel.controllers.virtualmachine import ports
from carmel.controllers.virtualmachine.configuring import disk_config, machine_config
from carmel.controllers.virtualmachine.launched import LaunchedSpecs
from carmel.controllers.virtualmachine.nics import close_descriptors
from carmel.controllers.virtualmachine.observed import Launched, Observed
from carmel.controllers.virtualmachine.observing import Reader
from carmel.controllers.virtualmachine.status import identities
from carmel.controllers.virtualmachine.steps import Launch
from carmel.controllers.virtualmachine.volumes import volume_name
from carmel.errors import CarmelError, Conflict, Unavailable
from carmel.hypervisor.config import AnyDisk
from carmel.hypervisor.machine import Hypervisor, Machine
from carmel.paths import Paths
from carmel.resources.base import SecretKeyReference
from carmel.resources.virtualmachine import Disk, FirmwareType, VirtualMachine, VirtualMachineSpec


@dataclass(frozen=True, slots=True)
class Launcher:
    """Starts VMs."""

    reader: Reader
    hypervisor: Hypervisor
    paths: Paths
    launched: LaunchedSpecs
    places: Places
    disks: ports.Disks
    nics: ports.Nics
    seeds: ports.Seeds

    async def launch(self, observed: Observed, step: Launch) -> Machine:
        """Start ``observed.vm``. The spec that it runs with is on the disk before QEMU is; the launch record, which
        the hypervisor writes, too. A suspended VM is started from the spec it was suspended with. Its place was
        reserved before."""
        uid = observed.vm.metadata.uid or ""
        try:
            return await self._launch(observed, step)
        except BaseException:
            if self.hypervisor.machine(uid) is None:
                self.places.leave(uid)
                # What is still given after that, the next look at the VM takes back.
                with contextlib.suppress(CarmelError):
                    await self.nics.release(uid)
            raise

    async def _launch(self, observed: Observed, step: Launch) -> Machine:
        vm = observed.vm
        uid = vm.metadata.uid or ""
        before = observed.launched
        spec = before.spec if step.restore and before is not None else vm.spec
        volumes = [await self._volume(vm, volume_name(vm, disk)) for disk in spec.disks]
        kernel = await self._kernel(vm, spec)
        seed = await self._seed(vm, spec, restore=step.restore)
        nics = await self._nics(vm, spec, observed)
        try:
            ledger = self.places.ledger
            placement, decided = ledger.placement(uid), ledger.decided(uid)
            if placement is None or decided is None:
                raise Conflict("the VM lost its place before it was started", code="PlaceLost")
            config = machine_config(
                vm, spec, placement, ledger.ground, volumes=volumes, kernel=kernel, seed=seed, nics=nics
            )
            # The answer to a wish for a restart is the start that comes after it, from whatever spec.
            answered = spec.model_copy(update={"restart_requested_at": vm.spec.restart_requested_at})
            statuses = tuple(plan.status for plan in nics)
            await self.launched.put(uid, Launched(answered, observed.host.boot_id, statuses, Recorded(decided)))
            return await self.hypervisor.launch(config, paused=step.paused, restore=step.restore)
        finally:
            close_descriptors(nics)

    async def _volume(self, vm: VirtualMachine, name: str) -> ports.DiskSource:
        volume = await self.reader.volumes.get(Key(vm.metadata.namespace, name))
        if volume.status.used_by != vm.metadata.name:
            raise Unavailable(f"Volume {name} is not attached to this VM any more", code="VolumeInUse")
        return await self.disks.volume(volume, vm.metadata.name)

    async def disk(self, vm: VirtualMachine, disk: Disk) -> AnyDisk:
        """What one disk is to QEMU. Raises ``Unavailable`` (``VolumeInUse``), and what its datastore refuses."""
        return disk_config(disk, await self._volume(vm, volume_name(vm, disk)))

    async def _kernel(self, vm: VirtualMachine, spec: VirtualMachineSpec) -> ports.KernelFiles | None:
        if spec.firmware.type is not FirmwareType.DIRECT_KERNEL or spec.firmware.image_ref is None:
            return None
        key = Key(vm.metadata.namespace, spec.firmware.image_ref.name)
        return await self.disks.kernel(await self.reader.images.get(key))

    async def _seed(self, vm: VirtualMachine, spec: VirtualMachineSpec, *, restore: bool) -> Path | None:
        cloud_init = spec.cloud_init
        if cloud_init is None:
            return None
        place = self.paths.machine(vm.metadata.uid or "").cloud_init_iso
        if restore and await asyncio.to_thread(place.exists):
            # The guest has it mounted, perhaps: it must find the very same bytes.
            return place
        seed = ports.Seed(
            instance_id=identities(vm)[1],
            host_name=cloud_init.host_name or vm.metadata.name,
            user_data=await self._secret(vm, cloud_init.user_data_secret_ref),
            network_data=await self._secret(vm, cloud_init.network_data_secret_ref),
            ssh_authorized_keys=tuple(cloud_init.ssh_authorized_keys or ()),
        )
        await asyncio.to_thread(lambda: place.parent.mkdir(parents=True, exist_ok=True, mode=0o711))
        await self.seeds.write(seed, place)
        return place

    async def _secret(self, vm: VirtualMachine, reference: SecretKeyReference | None) -> bytes | None:
        if reference is None:
            return None
        secret = await self.reader.secrets.get(Key(vm.metadata.namespace, reference.name))
        encoded = (secret.data or {}).get(reference.key)
        if encoded is None:
            raise Unavailable(f"Secret {reference.name} has no key {reference.key} any more", code="WaitingForSecret")
        return base64.b64decode(encoded)

    async def _nics(self, vm: VirtualMachine, spec: VirtualMachineSpec, observed: Observed) -> Sequence[ports.NicPlan]:
        wanted = [
            ports.WantedNic(index, nic, await self.reader.networks.get(Key(None, nic.network_ref.name)))
            for index, nic in enumerate(spec.networks)
        ]
        before = observed.launched.networks if observed.launched is not None else ()
        return await self.nics.plan(ports.VmOfNics(vm, spec, before, self.paths.machine(vm.metadata.uid or "")), wanted)
