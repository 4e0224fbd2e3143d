"""Serves: on a Unix socket for this machine, HTTPS for everything that speaks only URLs (on loopback by default).

uvicorn's protocols do the HTTP; its own ``Server`` is not used, for it wakes up ten times a second, takes the
process's signals, and waits for watches to end by themselves.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import ssl
import time
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from uvicorn.config import Config
from uvicorn.server import ServerState

from carmel.apiserver.app import App
from carmel.apiserver.connections import Connection, Peers
from carmel.apiserver.credentials import Credentials, write_private
from carmel.apiserver.listening import https_listener, unix_listener
from carmel.cancellation import end_tasks
from carmel.errors import CarmelError
from carmel.paths import Paths
from carmel.resources.base import JsonObject
from carmel.run import Runner

_LOG = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"
_KEEP_ALIVE_SECONDS = 75
_HANDSHAKE_SECONDS = 10.0
_GRACE_SECONDS = 3.0
_CHECK_SECONDS = 86400.0
_MAX_MESSAGE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """``https_port`` 0 takes the port of the last run, or else a free one. ``https_address`` is the address that
    listens; ``https_names`` are names and addresses that clients call this host by, besides its own name.
    ``client_certificates``: clients may show one of this server's own authority (mutual TLS). ``before_its_address``:
    listen even while ``https_address`` is not there yet, as that of a link that comes up later."""

    https_port: int = 0
    https_address: str = LOOPBACK
    https_names: tuple[str, ...] = ()
    client_certificates: bool = False
    before_its_address: bool = False
    owner_uid: int | None = None

    @property
    def certified(self) -> tuple[str, ...]:
        """What the certificate has to be good for. Who listens everywhere is called by ``https_names`` alone."""
        address = ip_address(self.https_address)
        return self.https_names if address.is_unspecified else (*self.https_names, self.https_address)

    @property
    def url_host(self) -> str:
        """The address in this host's own URL: loopback for one that listens everywhere."""
        address = ip_address(self.https_address)
        if address.is_unspecified:
            return LOOPBACK
        return f"[{address}]" if address.version == 6 else str(address)


class Server:
    """Serves an ``App``. Start it once; ``stop`` ends streams first, then connections."""

    def __init__(self, app: App, paths: Paths, runner: Runner, config: ServerConfig | None = None) -> None:
        self._app = app
        self._paths = paths
        self._runner = runner
        self._config = config or ServerConfig()
        self._credentials = Credentials.of(paths)
        self._state = ServerState()
        self._peers = Peers(os.geteuid() if self._config.owner_uid is None else self._config.owner_uid)
        self._listeners: list[asyncio.Server] = []
        self._uvicorn: Config | None = None
        self._tls: ssl.SSLContext | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._port = 0
        self._made: list[Path] = []
        """Files that are ours to remove: not those of another daemon that was there first."""

    @property
    def https_port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"https://{self._config.url_host}:{self._port}"

    async def start(self) -> None:
        """Listen. Raises ``Refused`` (code ``PortInUse``, ``SocketInUse``, ...) and then listens nowhere."""
        self._uvicorn = _uvicorn_config(self._app)
        try:
            self._tls = await self._credentials.tls_context(
                self._runner, self._config.certified, client_certificates=self._config.client_certificates
            )
            await self._app.start()
            await self._listen_unix()
            await self._listen_https()
        except BaseException:
            await self.stop()
            raise
        self._renewal = asyncio.create_task(self._renew(), name="certificate renewal")

    async def stop(self) -> None:
        """End streams with a clean last byte, let short requests finish, then close what is left."""
        self._app.shared.stopping.set()
        await end_tasks(self._renewal)
        for listener in self._listeners:
            listener.close()
        for connection in list(self._state.connections):
            if not _is_websocket(connection):
                connection.shutdown()
        await self._drain()
        for listener in self._listeners:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_GRACE_SECONDS):
                    await listener.wait_closed()
        self._listeners = []
        self._remove_files()
        await self._app.stop()

    async def _drain(self) -> None:
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=_GRACE_SECONDS)
        late = set(self._state.tasks)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=_GRACE_SECONDS)
        for connection in list(self._state.connections):
            # Python 3.11.2's TLS transports raise this when the other side was quicker.
            with contextlib.suppress(AttributeError):
                connection.transport.abort()

    # -- listening ------------------------------------------------------------------------------------------------
    async def _listen_unix(self) -> None:
        listener = unix_listener(self._paths.api_socket)
        self._made.append(self._paths.api_socket)
        loop = asyncio.get_running_loop()
        self._listeners.append(await loop.create_unix_server(self._connection, sock=listener))

    async def _listen_https(self) -> None:
        config, remembered = self._config, self._credentials.remembered_port()
        listener = https_listener(
            config.https_address, config.https_port, remembered=remembered, early=config.before_its_address
        )
        self._port = listener.getsockname()[1]
        loop = asyncio.get_running_loop()
        self._listeners.append(
            await loop.create_server(
                self._connection,
                sock=listener,
                ssl=self._tls,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS,
                ssl_shutdown_timeout=1.0,
            )
        )
        if remembered != self._port:
            write_private(self._credentials.port_file, f"{self._port}\n")
        self._made.append(self._paths.https_port_file)
        self._paths.https_port_file.write_text(f"{self._port}\n")

    def _remove_files(self) -> None:
        for path in self._made:
            path.unlink(missing_ok=True)
        self._made = []

    def _connection(self) -> Connection:
        assert self._uvicorn is not None
        return Connection(self._uvicorn, self._state, self._peers)

    async def _renew(self) -> None:
        """Look once a day whether the certificate ends soon; who connects after that gets the new one."""
        while True:
            await asyncio.sleep(_CHECK_SECONDS)
            if self._credentials.is_current(time.time(), self._config.certified):
                continue
            try:
                await self._credentials.renew(self._runner, self._config.certified)
                assert self._tls is not None
                self._credentials.load_into(self._tls)
            except (CarmelError, OSError) as error:
                _LOG.error("the server's certificate could not be renewed: %s", error)

    def kubeconfig(self, token: str, *, user: str = "carmel-admin", namespace: str = "default") -> JsonObject:
        """A kubeconfig for this server, as JSON (which is YAML)."""
        authority = base64.b64encode(self._credentials.authority.read_bytes()).decode()
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "carmel", "cluster": {"server": self.url, "certificate-authority-data": authority}}],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": "carmel", "context": {"cluster": "carmel", "user": user, "namespace": namespace}}],
            "current-context": "carmel",
        }


def _uvicorn_config(app: App) -> Config:
    config = Config(
        app,
        http=Connection,
        ws="websockets-sansio",
        ws_max_size=_MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level="critical",  # the application logs what fails; uvicorn would call each refused console an error
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    )
    config.load()
    return config


def _is_websocket(connection: object) -> bool:
    """WebSockets are ended by their own handlers, which say why."""
    return not isinstance(connection, Connection)
