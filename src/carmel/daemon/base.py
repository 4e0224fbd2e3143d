"""What every daemon does, whatever it is the daemon of: its lock, its store, its API server, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable

from carmel.apiserver.app import App
from carmel.apiserver.identity import SYSTEM_NAMESPACE
from carmel.apiserver.server import Server, ServerConfig
from carmel.daemon.guard import GuardedStore
from carmel.daemon.lock import StateLock
from carmel.daemon.notify import ServiceManager
from carmel.daemon.options import Options, Role
from carmel.errors import AlreadyExists, CarmelError, Refused
from carmel.paths import Paths
from carmel.resources.core import NAMESPACE
from carmel.run import Runner
from carmel.store.protocol import Store
from carmel.store.sqlite import SqliteStore

_log = logging.getLogger(__name__)

WATCH_STATE_SECONDS = 10.0
NAMESPACES = ("default", SYSTEM_NAMESPACE)


class BaseDaemon(ABC):
    """Build it, ``start`` it, ``run`` it until told to end, ``stop`` it (after a start that failed, too).

    ``_start`` puts what it started on ``_stack``: it is stopped in the reverse order.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._paths = options.paths
        self._manager = ServiceManager()
        # What was started and how it is stopped, the last one first.
        self._stack = contextlib.AsyncExitStack()

    @abstractmethod
    async def _start(self) -> None: ...

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
        """What it was the daemon of runs on."""
        self._manager.stopping()
        await self._stack.aclose()
        _log.info("carmeld ended; what it made runs on")

    async def _open_store(self) -> None:
        """The directories, the lock on them, and the store: ``self._store``."""
        paths = self._paths
        await asyncio.to_thread(make_directories, paths)
        lock = StateLock(paths.lock)
        self._stack.callback(lock.release)
        await asyncio.to_thread(check_database, paths)
        await asyncio.to_thread(shutil.rmtree, paths.uploads, ignore_errors=True)
        self._store = GuardedStore(await SqliteStore.open(paths.database), lock.is_in_place, str(paths.state))
        self._stack.push_async_callback(self._store.close)
        await make_namespaces(self._store, NAMESPACES)

    async def _serve(self, app: App, runner: Runner) -> Server:
        """From here on there is an API, and the service manager is told so."""
        options = self._options
        on_a_nic = options.role is Role.SMARTNIC
        config = ServerConfig(
            https_port=options.https_port,
            https_address=options.https_address,
            https_names=options.https_names,
            client_certificates=on_a_nic,
            before_its_address=on_a_nic,
        )
        server = Server(app, self._paths, runner, config)
        await server.start()
        self._stack.push_async_callback(server.stop)
        return server

    def _tell_ready(self, server: Server) -> None:
        self._manager.ready(f"serving {server.url}")
        _log.info("carmeld is ready: %s and %s", self._paths.api_socket, server.url)

    def _state_is_there(self) -> bool:
        try:
            self._store.check()
        except CarmelError:
            return False
        return True


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
