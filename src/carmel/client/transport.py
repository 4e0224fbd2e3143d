"""HTTP/1.1 over a Unix socket or TLS, by the standard library alone.

One connection is kept for requests that follow each other; each stream (watch, log, upload) has its own.
"""

from __future__ import annotations

import contextlib
import http.client
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from carmel import __version__
from carmel.client.connections import Lines, TlsConnection, UnixConnection
from carmel.client.endpoint import Endpoint, HttpsEndpoint, UnixEndpoint
from carmel.client.troubles import connection_error

REQUEST_SECONDS = 30.0
_REUSE_SECONDS = 2.0
"""A kept connection that lay idle for longer may just be closed by the server: take a new one instead of guessing."""
_MAX_BODY_BYTES = 512 * 1024 * 1024
_MAX_LINE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer."""

    status: int
    content_type: str
    body: bytes


class Readable(Protocol):
    """What a body can be read from."""

    def read(self, size: int = -1, /) -> bytes: ...


class Stream:
    """An answer that is read while it comes."""

    def __init__(
        self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, endpoint: Endpoint
    ) -> None:
        self._connection = connection
        self._answer = answer
        self._endpoint = endpoint
        self.status = answer.status
        self.content_type = answer.headers.get("Content-Type", "")
        self.length = answer.length
        """Bytes that the body has, where the server said so."""

    def wait_at_most(self, seconds: float | None) -> None:
        """Bound the wait for each piece from here on."""
        if self._connection.sock is not None:
            self._connection.sock.settimeout(seconds)

    def line(self) -> bytes:
        """The next line with its end, or what is left of one; empty at the end of the answer."""
        with _mapped_errors(self._endpoint):
            return self._answer.readline(_MAX_LINE_BYTES)

    def chunk(self) -> bytes:
        """What is there, at least one byte; empty at the end of the answer."""
        with _mapped_errors(self._endpoint):
            return self._answer.read1(65536)

    def rest(self) -> bytes:
        """All that is left."""
        with _mapped_errors(self._endpoint):
            return self._answer.read(_MAX_BODY_BYTES)


class Transport:
    """Requests to one server. Use it from one thread; only ``cut`` may be called from others."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._lines = Lines()
        self._kept: http.client.HTTPConnection | None = None
        self._used_at = 0.0

    def close(self) -> None:
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def cut(self) -> None:
        """For ever: what waits for the server, in whichever thread, raises ``Unavailable`` now; so does all later."""
        self._lines.cut()

    def request(
        self,
        method: str,
        path: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = REQUEST_SECONDS,
    ) -> Response:
        """Send one request and read the whole answer, whatever its status.

        Raises ``Unavailable`` (nobody answers), ``Forbidden`` (the socket is not ours to open), ``TimedOut``.
        """
        with self._errors():
            connection = self._connection(seconds)
            try:
                connection.request(method, self._url(path), body=body, headers=self._headers(headers))
                answer = connection.getresponse()
                data = answer.read(_MAX_BODY_BYTES)
            except BaseException:
                self.close()
                raise
            self._used_at = time.monotonic()
            if answer.will_close:
                self.close()
            return Response(answer.status, answer.headers.get("Content-Type", ""), data)

    @contextlib.contextmanager
    def stream(
        self,
        method: str,
        path: str,
        *,
        body: Readable | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float | None = REQUEST_SECONDS,
    ) -> Iterator[Stream]:
        """Send one request on a connection of its own and give the answer to be read piece by piece.

        ``seconds`` bounds the wait for each piece; ``None`` waits for ever. Errors as in ``request``.
        """
        connection = self._new_connection(seconds)
        try:
            with self._errors():
                connection.request(method, self._url(path), body=body, headers=self._headers(headers))
                answer = connection.getresponse()
            yield Stream(connection, answer, self.endpoint)
        finally:
            connection.close()

    def _connection(self, seconds: float) -> http.client.HTTPConnection:
        if self._kept is not None and time.monotonic() - self._used_at > _REUSE_SECONDS:
            self.close()
        if self._kept is None:
            self._kept = self._new_connection(seconds)
        elif self._kept.sock is not None:
            self._kept.sock.settimeout(seconds)
        return self._kept

    def _new_connection(self, seconds: float | None) -> http.client.HTTPConnection:
        if isinstance(self.endpoint, UnixEndpoint):
            return UnixConnection(str(self.endpoint.socket), seconds, self._lines)
        return TlsConnection(self.endpoint, seconds, self._lines)

    def _url(self, path: str) -> str:
        return path if isinstance(self.endpoint, UnixEndpoint) else self.endpoint.base_path + path

    def _headers(self, extra: Mapping[str, str] | None) -> dict[str, str]:
        headers = {"User-Agent": f"carmel/{__version__}", "Accept": "application/json"}
        if isinstance(self.endpoint, HttpsEndpoint) and self.endpoint.token:
            headers["Authorization"] = f"Bearer {self.endpoint.token}"
        headers.update(extra or {})
        return headers

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return _mapped_errors(self.endpoint)


@contextlib.contextmanager
def _mapped_errors(endpoint: Endpoint) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException) as exc:
        raise connection_error(endpoint, exc) from exc
