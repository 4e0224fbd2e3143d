"""Everything that runs on a SmartNIC's Arm cores: the same daemon, without what runs VMs.

The order of a start is a promise, as it is on a host: the store, then what is switched (from the NIC's own store,
without the host), and only then the API.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from carmel.apiserver.app import ApiConfig, App, build_app
from carmel.apiserver.authorization import Authorizer
from carmel.apiserver.bindings import Bindings
from carmel.apiserver.credentials import Credentials
from carmel.apiserver.identity import Authenticator, HostCertificates
from carmel.controllers.nic.facts import read_nic_facts
from carmel.controllers.runtime import EventKind, Key, Runtime
from carmel.daemon.base import BaseDaemon
from carmel.daemon.cputime import read_cpu_time
from carmel.daemon.measures import families
from carmel.daemon.nicassembly import NicControllers
from carmel.daemon.nicstorage import NicStorage
from carmel.hardware.sysroot import Sysroot
from carmel.network.host.netlink import Netlink
from carmel.resources.base import Resource
from carmel.resources.datastore import DATASTORE
from carmel.resources.kinds import Kind
from carmel.resources.smartnic import SMART_NIC, SmartNIC, SmartNICSpec
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.resources.volume import VOLUME
from carmel.run import SystemRunner
from carmel.smartnic.models.find import find_model
from carmel.smartnic.nvme.export import Listen

_NO_VMS = "a SmartNIC runs no VMs: make it on the host, whose NICs this one switches"
_NO_DISKS = "a SmartNIC keeps no volumes: what it shows its host as a disk is an NVMeNamespace"
NOT_HERE = {VIRTUAL_MACHINE: _NO_VMS, VOLUME: _NO_DISKS, DATASTORE: _NO_DISKS}


class SmartNicDaemon(BaseDaemon):
    """That of a SmartNIC."""

    async def _start(self) -> None:
        runner = SystemRunner()
        await self._open_store()
        root = Sysroot(Path("/"))
        facts = await asyncio.to_thread(read_nic_facts, root)
        netlink = Netlink()
        self._stack.push_async_callback(netlink.aclose)
        model = find_model(root, (await netlink.observe()).links, runner)
        runtime = Runtime(self._store, facts.name)
        options = self._options
        exports = Listen(options.nbd_address, options.nbd_port)
        storage = NicStorage(runtime, facts, model, self._paths, runner, options.qemu_user, exports)
        itself = await runtime.resources(SMART_NIC, SmartNIC).find(Key(None, facts.name))
        switch = SmartNICSpec().switch if itself is None else itself.spec.switch
        controllers = NicControllers(runtime, facts, model, netlink, self._paths, runner, storage, switch)
        self._stack.push_async_callback(controllers.stop)
        await controllers.start()
        server = await self._serve(self._app(runtime, controllers, storage, facts.name), runner)
        self._tell_ready(server)

    def _app(self, runtime: Runtime, controllers: NicControllers, storage: NicStorage, name: str) -> App:
        def audit(kind: Kind, bound: Resource, reason: str, message: str) -> None:
            runtime.events.record(kind, bound, EventKind.NORMAL, reason, message, component="apiserver")

        credentials = Credentials.of(self._paths)
        app = build_app(
            ApiConfig(
                store=self._store,
                authenticator=Authenticator(
                    self._store, credentials.admin_token(), hosts=HostCertificates(credentials)
                ),
                authorizer=Authorizer(self._store, name),
                streams=storage.images.streams,
                ready={"controllers": lambda: controllers.running, "state-directory": self._state_is_there},
                bindings=Bindings(self._store, name, audit),
                not_here=NOT_HERE,
            )
        )
        app.metrics.register(lambda: families(runtime.metrics()))
        app.metrics.register_waited_for(lambda: asyncio.to_thread(read_cpu_time))
        app.metrics.register(lambda: families(controllers.switching.metrics()))
        return app
