"""A whole API server on a real store, with streams that a test controls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from carmel.apiserver.app import ApiConfig, App, build_app
from carmel.apiserver.authorization import Authorizer
from carmel.apiserver.bindings import Bindings
from carmel.apiserver.credentials import Credentials
from carmel.apiserver.identity import Authenticator, HostCertificates, LocalUsers
from carmel.apiserver.server import Server, ServerConfig
from carmel.apiserver.streams import ConsoleStream, LogTail
from carmel.errors import NotFound, Unavailable
from carmel.paths import Paths
from carmel.resources.base import Resource
from carmel.resources.kinds import Kind
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.run import SystemRunner
from carmel.store.protocol import Store
from tests.stores import open_store

NAMESPACES = ("default", "team", "carmel-system")
NIC = "nic-1"
NO_VMS = "a SmartNIC runs no VMs"


@dataclass
class EchoConsole:
    """A guest that says what is typed at it; ``exit`` ends it."""

    output: asyncio.Queue[bytes | Exception] = field(default_factory=asyncio.Queue)
    closed: bool = False

    async def read(self) -> bytes:
        said = await self.output.get()
        if isinstance(said, Exception):
            raise said
        return said

    async def write(self, data: bytes) -> None:
        self.output.put_nowait(b"" if data == b"exit" else data)

    async def close(self) -> None:
        self.closed = True


@dataclass
class FakeStreams:
    """Consoles that echo, a log of given chunks, and uploads that are kept in memory."""

    consoles: dict[str, EchoConsole] = field(default_factory=dict)
    log: list[bytes] = field(default_factory=list)
    uploads: dict[str, tuple[bytes, int | None]] = field(default_factory=dict)
    promised: int = 0
    upload_error: Exception | None = None
    tails: list[LogTail] = field(default_factory=list)
    follow: asyncio.Event = field(default_factory=asyncio.Event)

    async def open_console(self, namespace: str, name: str) -> ConsoleStream:
        try:
            return self.consoles[f"{namespace}/{name}"]
        except KeyError:
            raise NotFound(f'virtualmachines.carmel.dev "{name}" not found') from None

    async def read_log(self, namespace: str, name: str, tail: LogTail) -> AsyncIterator[bytes]:
        self.tails.append(tail)
        return self._chunks(follow=tail.follow)

    async def _chunks(self, *, follow: bool) -> AsyncIterator[bytes]:
        for chunk in self.log:
            yield chunk
        if follow:
            await self.follow.wait()

    async def receive_upload(
        self, namespace: str, image_name: str, chunks: AsyncIterator[bytes], total_bytes: int | None
    ) -> None:
        if self.upload_error is not None:
            raise self.upload_error
        received = b"".join([chunk async for chunk in chunks])
        self.uploads[f"{namespace}/{image_name}"] = (received, total_bytes)

    async def read_image(self, namespace: str, name: str) -> tuple[AsyncIterator[bytes], int]:
        return self._chunks(follow=False), self.promised


def dropped() -> Unavailable:
    return Unavailable("this console was too slow and has been dropped", code="ConsoleDropped")


@dataclass
class Harness:
    store: Store
    app: App
    streams: FakeStreams
    paths: Paths
    token: str
    server: Server


def make_app(store: Store, streams: FakeStreams, token: str, owner_uid: int | None = None) -> App:
    return build_app(
        ApiConfig(
            store=store,
            authenticator=Authenticator(store, token, LocalUsers(owner_uid)),
            authorizer=Authorizer(store),
            streams=streams,
        )
    )


@dataclass
class SmartNicApp:
    """The application as a SmartNIC serves it; ``told`` has what was to be kept as Events."""

    app: App
    store: Store
    credentials: Credentials
    told: list[tuple[str, str, str]] = field(default_factory=list)

    def audit(self, _kind: Kind, bound: Resource, reason: str, message: str) -> None:
        self.told.append((bound.metadata.name, reason, message))


def make_smartnic_app(store: Store, paths: Paths) -> SmartNicApp:
    """Its administrator's token is ``secret``."""
    credentials = Credentials.of(paths)
    served = SmartNicApp(App.__new__(App), store, credentials)
    config = ApiConfig(
        store=store,
        authenticator=Authenticator(store, "secret", hosts=HostCertificates(credentials)),
        authorizer=Authorizer(store, NIC),
        streams=FakeStreams(),
        bindings=Bindings(store, NIC, served.audit),
        not_here={VIRTUAL_MACHINE: NO_VMS},
    )
    served.app = build_app(config)
    return served


@asynccontextmanager
async def running_app(folder: Path) -> AsyncIterator[tuple[App, Store, FakeStreams]]:
    """The application alone, without sockets; its administrator's token is ``secret``."""
    async with open_store(folder, *NAMESPACES) as store:
        streams = FakeStreams()
        app = make_app(store, streams, "secret")
        await app.start()
        try:
            yield app, store, streams
        finally:
            app.shared.stopping.set()
            await app.stop()


@asynccontextmanager
async def running_server(folder: Path, config: ServerConfig | None = None) -> AsyncIterator[Harness]:
    """The application behind its real listeners."""
    paths = Paths(state=folder / "state", runtime=folder / "run", cache=folder / "cache")
    paths.state.mkdir(exist_ok=True)
    async with open_store(paths.state, *NAMESPACES) as store:
        streams = FakeStreams()
        token = Credentials.of(paths).admin_token()
        app = make_app(store, streams, token)
        server = Server(app, paths, SystemRunner(), config)
        await server.start()
        try:
            yield Harness(store, app, streams, paths, token, server)
        finally:
            await server.stop()
