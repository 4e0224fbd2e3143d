"""The listeners: a Unix socket for this machine, HTTPS for everything that speaks only URLs (on loopback by default).

uvicorn's protocols do the HTTP; its own ``Server`` is not used, for it wakes up ten times a second, takes the
process's signals, and waits for watches to end by themselves.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import logging
import os
import socket
import ssl
import stat
import sys
import time
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from uvicorn.config import Config
from uvicorn.server import ServerState

from carmel.apiserver.app import App
from carmel.apiserver.connections import Connection, Peers
from carmel.apiserver.credentials import Credentials, write_private
from carmel.cancellation import end_tasks
from carmel.errors import CarmelError, Refused
from carmel.paths import SOCKET_PATH_MAX_BYTES, Paths
from carmel.resources.base import JsonObject
from carmel.run import Runner

_LOG = logging.getLogger(__name__)
LOOPBACK = "127.0.0.1"
_PREFERRED_PORTS = range(17443, 17453)
"""Below the ranges from which systems take ports for outgoing connections (Linux 32768, macOS 49152)."""
_KEEP_ALIVE_SECONDS = 75
_HANDSHAKE_SECONDS = 10.0
_GRACE_SECONDS = 3.0
_CHECK_SECONDS = 86400.0
_MAX_MESSAGE_BYTES = 64 * 1024
_IP_FREEBIND = 15
"""ip(7): an address that is not this machine's (yet). The same option counts for IPv6."""


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

    # -- the Unix socket ------------------------------------------------------------------------------------------
    async def _listen_unix(self) -> None:
        path = self._paths.api_socket
        if len(os.fsencode(path)) > SOCKET_PATH_MAX_BYTES:
            raise Refused(
                f"{path} is too long for a Unix socket",
                code="SocketPathTooLong",
                hint=f"choose a CARMEL_RUN_DIR so that the path has at most {SOCKET_PATH_MAX_BYTES} bytes",
            )
        path.parent.mkdir(mode=0o755 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(str(path))
            self._made.append(path)
            # Whoever may enter the folder may connect: the kernel says who it is, and bindings say what he may do.
            path.chmod(0o666 if os.geteuid() == 0 else 0o600)
            listener.listen(128)
            listener.setblocking(False)
            loop = asyncio.get_running_loop()
            self._listeners.append(await loop.create_unix_server(self._connection, sock=listener))
        except OSError as error:
            listener.close()
            raise Refused(f"{path} cannot be listened on: {error.strerror}", code="SocketNotUsable") from error

    def _remove_files(self) -> None:
        for path in self._made:
            path.unlink(missing_ok=True)
        self._made = []

    # -- HTTPS ----------------------------------------------------------------------------------------------------
    async def _listen_https(self) -> None:
        listener = self._bind_https()
        listener.listen(128)
        listener.setblocking(False)
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
        if self._credentials.remembered_port() != self._port:
            write_private(self._credentials.port_file, f"{self._port}\n")
        self._made.append(self._paths.https_port_file)
        self._paths.https_port_file.write_text(f"{self._port}\n")

    def _bind_https(self) -> socket.socket:
        wanted, address = self._config.https_port, self._config.https_address
        early = self._config.before_its_address
        if wanted:
            bound = _bound(address, wanted, early=early)
            if isinstance(bound, OSError):
                raise _port_refused(address, wanted, bound)
            return bound
        remembered = self._credentials.remembered_port()
        for port in (*([remembered] if remembered else []), *_PREFERRED_PORTS, 0):
            bound = _bound(address, port, early=early)
            if isinstance(bound, OSError):
                if bound.errno == errno.EADDRNOTAVAIL:
                    raise _port_refused(address, port, bound)
                continue
            if remembered and port != remembered:
                _LOG.warning(
                    "port %d of the last run is in use; HTTPS is on %d now: make kubeconfigs anew",
                    remembered,
                    bound.getsockname()[1],
                )
            return bound
        raise Refused(f"there is no free TCP port on {address}", code="PortInUse")

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


def _bound(address: str, port: int, *, early: bool) -> socket.socket | OSError:
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    # The protocol is named, because asyncio turns Nagle's algorithm off only where it is: 40 ms an answer otherwise.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if early and sys.platform == "linux":
        listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    try:
        listener.bind((address, port))
    except OSError as error:
        listener.close()
        return error
    return listener


def _port_refused(address: str, port: int, error: OSError) -> Refused:
    if error.errno == errno.EADDRNOTAVAIL:
        return Refused(
            f"{address} is not an address of this machine",
            code="AddressNotUsable",
            hint="choose another --https-address, or start carmeld once the network is up; 0.0.0.0 is every address",
        )
    if error.errno == errno.EADDRINUSE:
        return Refused(
            f"port {port} on {address} is in use by another program",
            code="PortInUse",
            hint=f"end that program (ss -ltnp 'sport = :{port}' names it), or choose another port for carmeld",
        )
    return Refused(f"port {port} on {address} cannot be used: {error.strerror}", code="PortNotUsable")


def _remove_stale(path: Path) -> None:
    """A socket that nobody listens on is left over from a daemon that was killed; anything else is not ours."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Refused(f"{path} is there, and it is no socket", code="SocketNotUsable", hint="move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise Refused(
        f"another daemon listens on {path}", code="SocketInUse", hint="stop it first, or use another CARMEL_RUN_DIR"
    )
