"""A VM's serial console: a WebSocket over the same socket or TLS connection as everything else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus
from websockets.sync.client import ClientConnection, connect, unix_connect
from websockets.typing import Subprotocol

from carmel.client.answers import error_of
from carmel.client.connections import tls_context
from carmel.client.endpoint import Endpoint, UnixEndpoint
from carmel.client.troubles import connection_error
from carmel.errors import Unavailable

_OPEN_SECONDS = 15.0
_MAX_MESSAGE_BYTES = 1024 * 1024
_SUBPROTOCOL = Subprotocol("v1.console.carmel.dev")
_NORMAL = 1000
"""RFC 6455 section 7.4.1."""


class Console:
    """Bytes in, bytes out. Reading may be done in one thread and sending in another."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def receive(self) -> bytes:
        """What the guest printed, at least one byte; empty when the server has ended the console.

        Raises ``Unavailable`` when the connection is lost rather than ended.
        """
        while True:
            try:
                message = self._connection.recv()
            except ConnectionClosed as exc:
                return _end(exc)
            data = message.encode() if isinstance(message, str) else message
            if data:
                return data

    def send(self, data: bytes) -> None:
        """Type ``data``. Nothing happens when the console has ended: ``receive`` tells that."""
        with contextlib.suppress(ConnectionClosed):
            self._connection.send(data)

    def close(self) -> None:
        self._connection.close()


def _end(exc: ConnectionClosed) -> bytes:
    """A normal end is one; for any other the server or the lack of one has a reason."""
    if exc.rcvd is not None and exc.rcvd.code == _NORMAL:
        return b""
    why = exc.rcvd.reason if exc.rcvd is not None and exc.rcvd.reason else "its connection was lost"
    raise Unavailable(f"the console has ended: {why}", code="ConsoleLost") from exc


@contextlib.contextmanager
def open_console(endpoint: Endpoint, path: str) -> Iterator[Console]:
    """Open the console at ``path`` (``.../virtualmachines/NAME/console``).

    Raises what the server answers (``NotFound``, ``Refused`` for a VM that does not run), and ``Unavailable``.
    """
    try:
        connection = _connect(endpoint, path)
    except InvalidStatus as exc:
        raise error_of(exc.response.status_code, bytes(exc.response.body or b"")) from exc
    except (InvalidHandshake, InvalidMessage) as exc:
        raise Unavailable(f"the server did not open the console: {exc}", code="ConsoleHandshakeFailed") from exc
    except OSError as exc:
        raise connection_error(endpoint, exc) from exc
    with connection:
        yield Console(connection)


def _connect(endpoint: Endpoint, path: str) -> ClientConnection:
    if isinstance(endpoint, UnixEndpoint):
        return unix_connect(
            str(endpoint.socket),
            f"ws://localhost{path}",
            open_timeout=_OPEN_SECONDS,
            max_size=_MAX_MESSAGE_BYTES,
            subprotocols=[_SUBPROTOCOL],
            compression=None,
            proxy=None,
        )
    return connect(
        f"wss://{str(endpoint).removeprefix('https://')}{path}",
        ssl=tls_context(endpoint),
        server_hostname=endpoint.server_name or endpoint.host,
        additional_headers={"Authorization": f"Bearer {endpoint.token}"} if endpoint.token else None,
        open_timeout=_OPEN_SECONDS,
        max_size=_MAX_MESSAGE_BYTES,
        subprotocols=[_SUBPROTOCOL],
        compression=None,
        proxy=None,
    )
