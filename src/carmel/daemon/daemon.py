"""Everything that one host runs, started in order and stopped in the reverse.

The order of a start is a promise: lock, store, then the VMs that run (adoption), then controllers, then the API. So
no controller ever decides about a VM before it is known whether it runs, and nobody is answered before that.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from carmel.apiserver.app import ApiConfig, App, build_app
from carmel.apiserver.authorization import Authorizer
from carmel.apiserver.credentials import Credentials
from carmel.apiserver.identity import Authenticator
from carmel.apiserver.server import ServerConfig
from carmel.controllers.datastore import Datastores
from carmel.controllers.host_facts import read_facts
from carmel.controllers.offload import Relays
from carmel.controllers.placement import Surveyor
from carmel.controllers.runtime import Runtime
from carmel.daemon.assembly import Controllers
from carmel.daemon.base import BaseDaemon
from carmel.daemon.cputime import read_cpu_time
from carmel.daemon.measures import families
from carmel.daemon.platform import this_machine
from carmel.daemon.streams import DaemonStreams
from carmel.hypervisor.machine import Machine, MachineState
from carmel.hypervisor.qemu import QemuHypervisor
from carmel.paths import Paths
from carmel.resources.host import HostPlacementSpec
from carmel.resources.virtualmachine import VIRTUAL_MACHINE, VirtualMachine
from carmel.run import SystemRunner

_log = logging.getLogger(__name__)


class Daemon(BaseDaemon):
    """That of a host with VMs."""

    async def _start(self) -> None:
        paths, runner = self._paths, SystemRunner()
        await self._open_store()

        facts = await asyncio.to_thread(read_facts)
        runtime = Runtime(self._store, facts.name)
        surveyor = Surveyor(this_machine(facts), runtime.clock)
        await surveyor.look(HostPlacementSpec(), None)
        kvm = surveyor.ledger.ground.hardware.kvm
        hypervisor = QemuHypervisor(paths, runner, user=self._options.qemu_user, kvm=kvm)
        self._stack.push_async_callback(hypervisor.close)
        await self._settle(hypervisor, await hypervisor.adopt())

        datastores = Datastores()
        self._stack.callback(datastores.close_all)
        controllers = Controllers(
            runtime, hypervisor, datastores, paths, runner, facts, surveyor, self._options.qemu_user, self._relays()
        )
        self._stack.push_async_callback(controllers.stop)
        await controllers.start()

        server = await self._serve(self._app(runtime, controllers, hypervisor), runner)
        controllers.serve_at(server.url)
        self._tell_ready(server)

    def _relays(self) -> Relays:
        """To SmartNICs: where HTTPS is served, too."""
        address = self._options.https_address
        return Relays(address, ServerConfig(https_address=address).url_host)

    def _app(self, runtime: Runtime, controllers: Controllers, hypervisor: QemuHypervisor) -> App:
        vms = runtime.resources(VIRTUAL_MACHINE, VirtualMachine)
        app = build_app(
            ApiConfig(
                store=self._store,
                authenticator=Authenticator(self._store, Credentials.of(self._paths).admin_token()),
                authorizer=Authorizer(self._store),
                streams=DaemonStreams(vms, hypervisor, controllers.uploads, controllers.downloads),
                ready={"controllers": lambda: controllers.running, "state-directory": self._state_is_there},
            )
        )
        app.metrics.register(lambda: families(runtime.metrics()))
        app.metrics.register_waited_for(lambda: asyncio.to_thread(read_cpu_time))
        app.metrics.register_waited_for(controllers.nic_families)
        return app

    async def _settle(self, hypervisor: QemuHypervisor, machines: Iterable[Machine]) -> None:
        """End VMs, and remove files, that no VirtualMachine stands for: their finalizer was taken away by force."""
        known = {stored.uid for stored in (await self._store.list(VIRTUAL_MACHINE)).items}
        for machine in machines:
            uid = machine.launch.uid
            if uid in known:
                continue
            _log.warning("the VM %s has no VirtualMachine any more and is ended", uid)
            if machine.state in {MachineState.RUNNING, MachineState.PAUSED}:
                await machine.kill("its VirtualMachine is gone")
            else:
                await machine.collect()
        for uid in await asyncio.to_thread(_machine_directories, self._paths):
            if uid not in known:
                await hypervisor.forget(uid)


def _machine_directories(paths: Paths) -> list[str]:
    return [place.name for place in paths.machines.glob("*")] if paths.machines.is_dir() else []
