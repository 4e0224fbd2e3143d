"""A SmartNIC in small: the real API of a SmartNIC with its store and mutual TLS, and a controller that plugs at once.

What it lets a host do is decided by the code that decides on a real one. It can be cut off and come back, change its
serial number, and speak as another version does. The contract is ``nic_contract``.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import timedelta
from pathlib import Path
from typing import Self, TypeVar

from carmel import __version__
from carmel.apiserver.app import ApiConfig, build_app
from carmel.apiserver.authorization import Authorizer
from carmel.apiserver.bindings import Bindings
from carmel.apiserver.credentials import Credentials
from carmel.apiserver.identity import Authenticator, HostCertificates
from carmel.apiserver.pki import authority, client
from carmel.apiserver.server import Server, ServerConfig
from carmel.client.endpoint import HttpsEndpoint
from carmel.daemon.cputime import read_cpu_time
from carmel.paths import Paths
from carmel.resources.base import JsonObject
from carmel.resources.port import PORT
from carmel.resources.smartnic import SMART_NIC
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.run import SystemRunner
from carmel.smartnic.credentials import endpoint_of
from carmel.store.protocol import EventType
from carmel.store.sqlite import SqliteStore
from tests.stores import open_store
from tests.unit.apiserver.harness import FakeStreams

T = TypeVar("T")

TOKEN = "the-token-of-the-nics-administrator"
NAME = "itself"
LONG_AGO = timedelta(days=-9000)
HOST = "server-1"


def mac_of(number: int) -> str:
    return f"52:54:00:ca:01:{number:02x}"


def net_function(number: int) -> JsonObject:
    name = f"pf0vf{number}"
    return {"id": name, "kind": "net", "mac": mac_of(number), "representor": name, "state": "Free"}


class FakeNic:
    """Use ``running_nic``. ``keys`` is what a Secret of the host holds."""

    def __init__(self, paths: Paths, store: SqliteStore) -> None:
        self.paths = paths
        self.store = store
        self.plugs = True
        """False: its data plane does not come to it."""
        self._server: Server | None = None
        self._plugging: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self) -> None:
        credentials = Credentials.of(self.paths)
        app = build_app(
            ApiConfig(
                store=self.store,
                authenticator=Authenticator(self.store, TOKEN, hosts=HostCertificates(credentials)),
                authorizer=Authorizer(self.store, NAME),
                streams=FakeStreams(),
                bindings=Bindings(self.store, NAME, lambda *_told: None),
                not_here={VIRTUAL_MACHINE: "a SmartNIC runs no VMs"},
            )
        )
        app.metrics.register_waited_for(lambda: asyncio.to_thread(read_cpu_time))
        self._server = Server(app, self.paths, SystemRunner(), ServerConfig(client_certificates=True))
        await self._server.start()
        self.port = self._server.https_port
        self._plugging = asyncio.create_task(self._plug())

    async def stop(self) -> None:
        """Its daemon ends; what it had plugged stays plugged."""
        if self._plugging is not None:
            self._plugging.cancel()
            await asyncio.gather(self._plugging, return_exceptions=True)
            self._plugging = None
        if self._server is not None:
            await self._server.stop()
            self._server = None

    # -- what its administrators and its hardware do -------------------------------------------------------------
    def invite(self, lasts: timedelta = timedelta(days=30), host: str = HOST) -> dict[str, str]:
        """The data of the host's Secret. An earlier one counts no more."""
        keys = client(self.paths.pki, authority(self.paths.pki), host, lasts)
        return {key: base64.b64encode(text.encode()).decode() for key, text in keys.items()}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def endpoint(self, keys: dict[str, str] | None = None) -> HttpsEndpoint:
        return endpoint_of(self.address, "keys", keys or self.invite())

    async def tell(self, **status: object) -> None:
        """Of itself, on top of what it told before."""
        known = (await self.store.get(SMART_NIC, None, NAME)).json()
        known["status"] = {**known.get("status", {}), **status}
        known["metadata"].pop("resourceVersion")
        await self.store.replace(SMART_NIC, known, subresource="status")

    async def trust(self, trust: str) -> None:
        known = (await self.store.get(SMART_NIC, None, NAME)).json()
        known["spec"]["trust"] = trust
        known["metadata"].pop("resourceVersion")
        await self.store.replace(SMART_NIC, known)
        await self.tell(trust=trust)

    async def make_port(self, name: str, owner: str = "uid-1", namespace: str = "default", **spec: object) -> None:
        body = {
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "networkRef": {"name": "lan"},
                "vmRef": {"name": "vm"},
                "nic": "eth0",
                "owner": owner,
                "mac": "52:54:00:00:00:01",
                **spec,
            },
        }
        await self.store.create(PORT, body)

    async def bound(self, name: str, namespace: str = "default") -> str | None:
        function: str | None = (await self.store.get(PORT, namespace, name)).json()["spec"].get("function")
        return function

    # -- what its daemon does ------------------------------------------------------------------------------------
    async def _plug(self) -> None:
        async with self.store.watch(PORT, send_initial=True) as events:
            async for event in events:
                if event.object is not None and event.type is not EventType.DELETED and self.plugs:
                    await self._realise(event.object.json())

    async def _realise(self, port: JsonObject) -> None:
        wanted = port["spec"].get("function")
        status = port.get("status") or {}
        if status.get("function") == wanted and status.get("conditions"):
            return
        told = (await self.store.get(SMART_NIC, None, NAME)).json()
        macs = {one["id"]: one.get("mac") for one in told.get("status", {}).get("functions", [])}
        ready = {"type": "Ready", "status": "True", "reason": "Plugged", "message": ""}
        if wanted is None:
            ready |= {"status": "False", "reason": "NoFunction", "message": "no function is plugged in"}
        port["status"] = {"conditions": [ready]}
        if wanted is not None:
            port["status"] |= {"function": wanted, "dataPlane": "SmartNIC", "interface": "cmp0123456789"}
            if macs.get(wanted) != port["spec"]["mac"]:
                port["status"]["mac"] = macs.get(wanted)
        port["metadata"].pop("resourceVersion")
        await self.store.replace(PORT, port, subresource="status")


@contextlib.asynccontextmanager
async def running_nic(folder: Path, functions: Iterable[int] = (0, 1), serial: str = "MT-1") -> AsyncIterator[FakeNic]:
    """A NIC that listens on loopback, with a network ``lan`` and the functions of these numbers."""
    paths = Paths(state=folder / "nic", runtime=folder / "nic-run", cache=folder / "nic-cache")
    paths.state.mkdir(parents=True)
    async with open_store(paths.state, "default", "carmel-system") as store:
        nic = FakeNic(paths, store)
        await store.create(SMART_NIC, {"metadata": {"name": NAME}})
        await nic.tell(
            serial=serial,
            model="emulated",
            mode="DPU",
            trust="Restricted",
            carmelVersion=__version__,
            kernel="6.1",
            bootID="boot-1",
            functions=[net_function(number) for number in functions],
            conditions=[{"type": "Ready", "status": "True", "reason": "Ready", "message": ""}],
        )
        await nic.start()
        try:
            yield nic
        finally:
            await nic.stop()


class NicThread:
    """A running NIC in a loop and thread of its own, for tests that block. ``do`` works on it from outside."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run)
        self.nic: FakeNic

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(60)
        return self

    def __exit__(self, *_exc: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()

    def do(self, work: Callable[[FakeNic], Awaitable[T]]) -> T:
        async def call() -> T:
            return await work(self.nic)

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(60)

    def _run(self) -> None:
        self._loop.run_until_complete(self._main())

    async def _main(self) -> None:
        try:
            async with running_nic(self._folder) as self.nic:
                self._ready.set()
                await self._over.wait()
        finally:
            self._ready.set()
