"""Everything that one host runs, started in order and stopped in the reverse.

The order of a start is a promise: lock, store, then the VMs that run (adoption), then controllers, then the API. So
no controller ever decides about a VM before it is known whether it runs, and nobody is answered before that.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Iterable

from carmel.apiserver.app import ApiConfig, build_app
from carmel.apiserver.authorization import Authorizer
from carmel.apiserver.credentials import Credentials
from carmel.apiserver.identity import SYSTEM_NAMESPACE, Authenticator
from carmel.apiserver.server import Server, ServerConfig
from carmel.controllers.datastore import Datastores
from carmel.controllers.host_facts import read_facts
from carmel.controllers.placement import Surveyor
from carmel.controllers.runtime import Runtime
from carmel.daemon.assembly import Controllers
from carmel.daemon.guard import GuardedStore
from carmel.daemon.lock import StateLock
from carmel.daemon.measures import families
from carmel.daemon.notify import ServiceManager
from carmel.daemon.options import Options
from carmel.daemon.platform import this_machine
from carmel.daemon.streams import DaemonStreams
from carmel.errors import AlreadyExists, CarmelError, Refused
from carmel.hypervisor.machine import Machine, MachineState
from carmel.hypervisor.qemu import QemuHypervisor
from carmel.paths import Paths
from carmel.resources.core import NAMESPACE
from carmel.resources.host import HostPlacementSpec
from carmel.resources.virtualmachine import VIRTUAL_MACHINE, VirtualMachine
from carmel.run import SystemRunner
from carmel.store.protocol import Store
from carmel.store.sqlite import SqliteStore

_log = logging.getLogger(__name__)

WATCH_STATE_SECONDS = 10.0
NAMESPACES = ("default", SYSTEM_NAMESPACE)


class Daemon:
    """Build it, ``start`` it, ``run`` it until told to end, ``stop`` it (after a start that failed, too)."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._paths = options.paths
        self._manager = ServiceManager()
        # What was started and how it is stopped, the last one first.
        self._stack = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Raises ``CarmelError`` when it cannot be; then nothing was left running."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``: keep the service manager and the state directory in sight."""
        interval = min(WATCH_STATE_SECONDS, self._manager.watchdog_seconds or WATCH_STATE_SECONDS)
        while not stop.is_set():
            self._manager.alive()
            with contextlib.suppress(CarmelError):
                self._store.check()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval):
                    await stop.wait()

    async def stop(self) -> None:
        """VMs run on."""
        self._manager.stopping()
        await self._stack.aclose()
        _log.info("carmeld ended; its VMs run on")

    async def _start(self) -> None:
        paths, runner = self._paths, SystemRunner()
        await asyncio.to_thread(make_directories, paths)
        lock = StateLock(paths.lock)
        self._stack.callback(lock.release)
        await asyncio.to_thread(check_database, paths)
        await asyncio.to_thread(shutil.rmtree, paths.uploads, ignore_errors=True)
        self._store = GuardedStore(await SqliteStore.open(paths.database), lock.is_in_place, str(paths.state))
        self._stack.push_async_callback(self._store.close)
        await make_namespaces(self._store, NAMESPACES)

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
            runtime, hypervisor, datastores, paths, runner, facts, surveyor, self._options.qemu_user
        )
        self._stack.push_async_callback(controllers.stop)
        await controllers.start()

        server = self._server(runtime, controllers, hypervisor, runner)
        await server.start()
        self._stack.push_async_callback(server.stop)
        controllers.serve_at(server.url)
        self._manager.ready(f"serving {server.url}")
        _log.info("carmeld is ready: %s and %s", paths.api_socket, server.url)

    def _server(
        self, runtime: Runtime, controllers: Controllers, hypervisor: QemuHypervisor, runner: SystemRunner
    ) -> Server:
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
        options = self._options
        config = ServerConfig(
            https_port=options.https_port, https_address=options.https_address, https_names=options.https_names
        )
        return Server(app, self._paths, runner, config)

    def _state_is_there(self) -> bool:
        try:
            self._store.check()
        except CarmelError:
            return False
        return True

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


def make_directories(paths: Paths) -> None:
    """QEMU's account passes through state and runtime directories to its own files, and can list neither."""
    for place in (paths.state, paths.runtime, paths.cache):
        try:
            place.mkdir(parents=True, exist_ok=True)
            if place.stat().st_uid == os.geteuid():
                place.chmod(0o755 if place == paths.runtime and os.geteuid() == 0 else 0o711)
        except OSError as error:
            raise Refused(
                f"{place} cannot be used: {error.strerror}",
                code="DirectoryNotUsable",
                hint="carmeld --help says how to choose another",
            ) from error


def check_database(paths: Paths) -> None:
    """A new store beside VMs that run would take them for nobody's. Raises ``Refused`` (``DatabaseMissing``)."""
    if paths.database.exists():
        return
    records = [record.parent.name for record in paths.machines.glob("*/launch.json")]
    if records:
        raise Refused(
            f"{paths.database} is missing, but there are launch records of {len(records)} VMs in {paths.machines}",
            code="DatabaseMissing",
            hint=f"bring the database back; if that is not possible, end those VMs and remove {paths.machines}",
        )


async def make_namespaces(store: Store, names: Iterable[str]) -> None:
    for name in names:
        with contextlib.suppress(AlreadyExists):
            await store.create(NAMESPACE, {"metadata": {"name": name}})


def _machine_directories(paths: Paths) -> list[str]:
    return [place.name for place in paths.machines.glob("*")] if paths.machines.is_dir() else []
