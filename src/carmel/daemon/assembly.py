"""All controllers of one host, and what they work with."""

from __future__ import annotations

import asyncio

from carmel.apiserver.metrics import Family
from carmel.controllers.datastore import DatastoreController, Datastores
from carmel.controllers.expiry import EventExpiry, add_task_expiry
from carmel.controllers.garbage import add_garbage_collector
from carmel.controllers.host import HostController, HypervisorFacts
from carmel.controllers.host_facts import HostFacts
from carmel.controllers.image import ImageController
from carmel.controllers.image_download import ImageDownloads
from carmel.controllers.image_source import ImageSources
from carmel.controllers.image_upload import ImageUploads
from carmel.controllers.namespaces import add_namespace_controller
from carmel.controllers.network.cablenics import CableNics
from carmel.controllers.offload import Relays
from carmel.controllers.placement import Mover, Places, Rebalancer, Surveyor
from carmel.controllers.placement.hotplug import Hotplug
from carmel.controllers.runtime import Runtime
from carmel.controllers.virtualmachine import Dependencies, LaunchedSpecs, VirtualMachineController
from carmel.controllers.virtualmachine.nics import NicSources
from carmel.controllers.volume import VolumeController
from carmel.controllers.volume_export import Exports
from carmel.daemon.disks import DatastoreDisks
from carmel.daemon.hostnetworks import HostNetworking
from carmel.daemon.measures import families
from carmel.daemon.offload import Offload
from carmel.daemon.platform import describe
from carmel.daemon.processuser import process_user
from carmel.daemon.seeds import CloudInitSeeds
from carmel.hypervisor.qemu import QemuHypervisor
from carmel.network.backends import Backends
from carmel.paths import Paths
from carmel.resources.host import HostEndpoint
from carmel.run import Runner

STOP_SECONDS = 1.0
"""What passes in flight are given at a stop; a pass that is cut off is done again by the next daemon."""


class Controllers:
    """``start`` lets them work, ``stop`` ends them within about a second."""

    def __init__(
        self,
        runtime: Runtime,
        hypervisor: QemuHypervisor,
        datastores: Datastores,
        paths: Paths,
        runner: Runner,
        facts: HostFacts,
        surveyor: Surveyor,
        qemu_user: str,
        relays: Relays,
    ) -> None:
        self.running = False
        self._runtime = runtime
        self._hypervisor = hypervisor
        self._facts = facts
        self._url = ""
        user = process_user(qemu_user)
        self._datastore = DatastoreController(runtime, datastores, paths, runner, user)
        self._offload = Offload(runtime, runner, surveyor.ledger, relays, self._look_at, self._endpoints_changed)
        exports = Exports(datastores, self._offload.disks, runner, paths.nbd_keys, user)
        self._volume = VolumeController(runtime, datastores, exports)
        self._image = ImageController(runtime, datastores, ImageSources(paths, runner))
        self.uploads = ImageUploads(runtime, datastores, self._image)
        self.downloads = ImageDownloads(runtime, datastores)
        backends = Backends(runner, user=user.uid if user else None, group=user.gid if user else None)
        self._networking = HostNetworking(runtime, paths, runner, backends)
        self._host = HostController(runtime, facts, self._ask_hypervisor, self._endpoints, surveyor)
        self._hotplug = Hotplug(self._host.machine_changed, self._offload.host_changed)
        launched = LaunchedSpecs(paths)
        mover = Mover(surveyor.ledger, hypervisor, launched)
        Rebalancer(runtime, surveyor.ledger, mover)
        self._machines = VirtualMachineController(
            runtime,
            Dependencies(
                hypervisor=hypervisor,
                disks=DatastoreDisks(datastores, self._offload.disks),
                nics=NicSources(
                    [
                        *self._networking.sources,
                        CableNics(runtime, paths, user.gid if user else None),
                        self._offload.nics,
                    ]
                ),
                seeds=CloudInitSeeds(),
                paths=paths,
                boot_id=facts.boot_id,
                launched=launched,
                places=Places(surveyor.ledger, mover, hypervisor, self._offload.near),
                limits=self._host.limits,
                lost_nics=self._offload.nics.software.lost,
            ),
        )
        add_namespace_controller(runtime)
        add_garbage_collector(runtime)
        add_task_expiry(runtime)
        self._events = EventExpiry(runtime)

    async def start(self) -> None:
        await self._datastore.ensure_default()
        await self._host.ensure()
        await self._host.learn()
        await self._machines.restore_places()
        await self._networking.start()
        await self._offload.begin()
        await self._runtime.start()
        await self._machines.start()
        self._events.start()
        self._hotplug.start()
        self.running = True

    async def stop(self) -> None:
        self.running = False
        self._hotplug.stop()
        await self._events.stop()
        await asyncio.gather(self._machines.stop(), self._image.stop())
        await self._runtime.stop(STOP_SECONDS)
        await self._offload.close()
        await self._networking.close()

    def serve_at(self, url: str) -> None:
        """Where the API server answers: told in the Host."""
        self._url = url
        self._host.look_again()

    def _endpoints_changed(self) -> None:
        self._host.look_again()

    async def nic_families(self) -> list[Family]:
        """What the SmartNICs measure of themselves."""
        return families(await self._offload.nic_samples())

    def _look_at(self, uid: str) -> None:
        self._machines.try_again(uid)

    def _endpoints(self) -> list[HostEndpoint]:
        own = [HostEndpoint(name="https", url=self._url)] if self._url else []
        return [*own, *self._offload.endpoints()]

    async def _ask_hypervisor(self) -> HypervisorFacts:
        return describe(await self._hypervisor.platform(), self._facts)
