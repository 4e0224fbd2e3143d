"""Connections to a server: a Unix socket or TLS, each of which another thread can cut off."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading

from carmel.client.endpoint import HttpsEndpoint
from carmel.errors import Refused

_KEEPALIVE = (("TCP_KEEPIDLE", 4), ("TCP_KEEPALIVE", 4), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))
"""Seconds, seconds and a count (tcp(7); macOS calls the first one TCP_KEEPALIVE). A watch may rightly say nothing for
an hour, so only this tells that the machine at the other end is gone: after ten seconds."""


class Lines:
    """The sockets that are open at the moment. ``cut`` ends all of them, whatever waits for what, and keeps new ones
    from being opened."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._cut = False

    def add(self, opened: socket.socket) -> None:
        """Raises ``ConnectionAbortedError`` after a cut."""
        with self._lock:
            if not self._cut:
                self._open.add(opened)
                return
        raise ConnectionAbortedError("the connection was cut off by ourselves")

    def remove(self, closed: socket.socket | None) -> None:
        with self._lock:
            if closed is not None:
                self._open.discard(closed)

    def cut(self) -> None:
        """May be called from any thread."""
        with self._lock:
            self._cut = True
            for each in self._open:
                with contextlib.suppress(OSError):
                    # The plain socket's: that of TLS would take its state from under whoever reads.
                    socket.socket.shutdown(each, socket.SHUT_RDWR)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None, lines: Lines) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._lines = lines

    def connect(self) -> None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._lines.add(connection)
            connection.settimeout(self.timeout)
            connection.connect(self._path)
        except BaseException:
            self._lines.remove(connection)
            connection.close()
            raise
        self.sock = connection

    def close(self) -> None:
        self._lines.remove(self.sock)
        super().close()


class TlsConnection(http.client.HTTPSConnection):
    """Verifies the server by the name in the kubeconfig, where that is not the name we connect to."""

    def __init__(self, endpoint: HttpsEndpoint, timeout: float | None, lines: Lines) -> None:
        self._tls = tls_context(endpoint)
        super().__init__(endpoint.host, endpoint.port, timeout=timeout, context=self._tls)
        self._server_name = endpoint.server_name or endpoint.host
        self._lines = lines

    def connect(self) -> None:
        plain = self._plain()
        self._lines.remove(plain)
        # The handshake comes later: until then nobody could cut off what it waits for.
        secure = self._tls.wrap_socket(plain, server_hostname=self._server_name, do_handshake_on_connect=False)
        try:
            self._lines.add(secure)
            secure.do_handshake()
        except BaseException:
            self._lines.remove(secure)
            secure.close()
            raise
        self.sock = secure

    def close(self) -> None:
        self._lines.remove(self.sock)
        super().close()

    def _plain(self) -> socket.socket:
        """As ``socket.create_connection``, but its sockets can be cut off while they connect."""
        failed: OSError | None = None
        for family, kind, protocol, _, address in socket.getaddrinfo(self.host, self.port, 0, socket.SOCK_STREAM):
            connection = socket.socket(family, kind, protocol)
            try:
                self._lines.add(connection)
                connection.settimeout(self.timeout)
                keep_alive(connection)
                connection.connect(address)
            except OSError as error:
                self._lines.remove(connection)
                connection.close()
                failed = error
            else:
                return connection
        raise failed or OSError(f"{self.host} has no address")


def keep_alive(connection: socket.socket) -> None:
    """Have the kernel find out when the other end is gone without a word."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        option: int | None = getattr(socket, name, None)
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)


def tls_context(endpoint: HttpsEndpoint) -> ssl.SSLContext:
    """TLS as the endpoint wants it. Raises ``Refused`` for certificates that cannot be read."""
    try:
        context = ssl.create_default_context(cadata=endpoint.ca)
        if not endpoint.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if endpoint.certificate and endpoint.key:
            load_pair(context, endpoint.certificate, endpoint.key)
    except (ssl.SSLError, ValueError) as exc:
        raise Refused(f"a certificate or key for {endpoint} cannot be read: {exc}", code="ConfigInvalid") from exc
    return context


def load_pair(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """OpenSSL takes a pair from files only: it lies in one of ours (0600) for that moment."""
    import tempfile  # only for client certificates

    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(certificate + "\n" + key)
        file.flush()
        context.load_cert_chain(file.name)
