"""One connection: uvicorn's HTTP protocol with limits, and with what the kernel knows about who is at the other end."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
import struct
import sys
from collections import Counter
from dataclasses import dataclass
from typing import Any

import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from carmel.apiserver.status import failure
from carmel.errors import BadRequest, CarmelError, TooManyRequests

MAX_HEADER_BYTES = 64 * 1024
MAX_HEADERS = 128
HEADER_SECONDS = 10.0
MAX_CONNECTIONS = 1024
MAX_CONNECTIONS_PER_PEER = 256
"""TCP connections together, and those of each foreign user on the Unix socket: one cannot shut out the rest."""
_DARWIN_LOCAL_PEERCRED = 1
_LINUX_UCRED = struct.Struct("3i")
_DARWIN_XUCRED = struct.Struct("IIh2x16I")


class HeadersTooLarge(CarmelError):
    """The request's line and headers are larger than is taken."""

    http_status = 431
    reason = "RequestHeaderFieldsTooLarge"
    exit_status = 5


def peer_uid(connection: socket.socket) -> int | None:
    """The user of the process at the other end of a Unix socket: unix(7) SO_PEERCRED, unix(4) LOCAL_PEERCRED."""
    if connection.family != socket.AF_UNIX:
        return None
    if sys.platform == "darwin":
        raw = connection.getsockopt(0, _DARWIN_LOCAL_PEERCRED, _DARWIN_XUCRED.size)
        return int(_DARWIN_XUCRED.unpack(raw)[1])
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _LINUX_UCRED.size)
    return int(_LINUX_UCRED.unpack(raw)[1])


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """A client's certificate that our authority signed, and whose key the client has: its subject, and the SHA-256 of
    the whole (of its DER form)."""

    common_name: str
    organisations: tuple[str, ...]
    sha256: str


def peer_certificate(connection: ssl.SSLObject | None) -> PeerCertificate | None:
    """``None``: no TLS, or the client showed none. One that does not verify ends the handshake before this."""
    shown = None if connection is None else connection.getpeercert()
    whole = None if connection is None else connection.getpeercert(binary_form=True)
    if not shown or not whole:
        return None
    # A tuple of relative distinguished names, each a tuple of pairs (ssl, SSLSocket.getpeercert).
    subject: Any = shown.get("subject", ())
    pairs = [pair for name in subject for pair in name]
    return PeerCertificate(
        next((value for key, value in pairs if key == "commonName"), ""),
        tuple(value for key, value in pairs if key == "organizationName"),
        hashlib.sha256(whole).hexdigest(),
    )


class Peers:
    """How many connections there are, and whose."""

    def __init__(self, owner_uid: int) -> None:
        self._owner = owner_uid
        self._open: Counter[int | None] = Counter()

    def enter(self, uid: int | None) -> bool:
        """Count one more, unless there are too many. The host's owner is limited by the total alone."""
        privileged = uid in {0, self._owner}
        limit = MAX_CONNECTIONS if privileged else MAX_CONNECTIONS_PER_PEER
        if self._open[uid] >= limit or self._open.total() >= MAX_CONNECTIONS + MAX_CONNECTIONS_PER_PEER:
            return False
        self._open[uid] += 1
        return True

    def leave(self, uid: int | None) -> None:
        self._open[uid] -= 1
        if not self._open[uid]:
            del self._open[uid]


class Connection(HttpToolsProtocol):
    """Adds to uvicorn: peer credentials, limits on headers and on the time they take, and errors as Status."""

    def __init__(self, config: Config, server_state: ServerState, peers: Peers) -> None:
        super().__init__(config, server_state, {})
        self._peers = peers
        self._uid: int | None = None
        self._counted = False
        self._header_bytes = 0
        self._refusal: CarmelError | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        raw = transport.get_extra_info("socket")
        self._uid = peer_uid(raw)
        certificate = peer_certificate(transport.get_extra_info("ssl_object"))
        self.app_state = {"peer_uid": self._uid, "peer_certificate": certificate, "abort": transport.abort}
        self._counted = self._peers.enter(self._uid)
        if not self._counted:
            self._answer_and_close(TooManyRequests("there are too many connections"))
            return
        self._await_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._headers_came()
        self._left()
        super().connection_lost(exc)

    def _left(self) -> None:
        if self._counted:
            self._counted = False
            self._peers.leave(self._uid)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)

    # -- the parser's callbacks -----------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        self._header_bytes = 0
        if self._deadline is None:
            self._await_headers()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._add(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._add(len(name) + len(value))
        if len(self.headers) >= MAX_HEADERS:
            self._refuse()
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._headers_came()
        super().on_headers_complete()

    def _add(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            self._refuse()

    def _refuse(self) -> None:
        self._refusal = HeadersTooLarge(
            f"a request's headers may have {MAX_HEADER_BYTES} bytes in at most {MAX_HEADERS} lines"
        )
        raise ValueError("headers too large")  # ends the parser's work; the answer is made in send_400_response

    # -- time -----------------------------------------------------------------------------------------------------
    def _await_headers(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def _headers_came(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self.transport.abort()

    # -- errors ---------------------------------------------------------------------------------------------------
    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the parser gave up."""
        self._answer_and_close(self._refusal or BadRequest(msg.rstrip(".").lower()))

    def _answer_and_close(self, error: CarmelError) -> None:
        self._headers_came()
        body = orjson.dumps(failure(error))
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (error.http_status, error.reason.encode(), len(body), body)
        )
        self.transport.close()

    def handle_websocket_upgrade(self) -> None:
        """From here on another protocol has the transport: stop counting time, and keep counting the connection."""
        self._headers_came()
        super().handle_websocket_upgrade()
        protocol: Any = self.transport.get_protocol()
        lost = protocol.connection_lost

        def connection_lost(exc: Exception | None) -> None:
            self._left()
            lost(exc)

        protocol.connection_lost = connection_lost
