"""A local HTTPS server that behaves as real ones do, and as bad ones do: ranges, changed files, cut connections."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Answer = Callable[["Handler"], None]


@dataclass
class Site:
    """What is served. ``requests`` are (path, Range header) in order; ``released`` lets slow answers end."""

    files: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, Answer] = field(default_factory=dict)
    cut_after: dict[str, int] = field(default_factory=dict)
    """Close the connection after so many bytes, once for each entry."""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    certificate: Path = Path()

    def publish(self, name: str, data: bytes) -> str:
        """Serve ``data`` and its sum; answers its URL."""
        self.files[f"/{name}"] = data
        self.files["/SHA256SUMS"] = f"{hashlib.sha256(data).hexdigest()} *{name}\n".encode()
        return f"{self.url}/{name}"

    @property
    def checksum_url(self) -> str:
        return f"{self.url}/SHA256SUMS"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        self.site.requests.append((self.path, self.headers.get("Range")))
        self.close_connection = True
        try:
            if (answer := self.site.answers.get(self.path)) is not None:
                answer(self)
            elif (data := self.site.files.get(self.path)) is None:
                self.send_error(404)
            else:
                self._send(data)
        except (ConnectionError, ssl.SSLError):
            pass

    def _send(self, data: bytes) -> None:
        tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        start = self._start(tag)
        if 0 < start < len(data):
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            start = 0
            self.send_response(200)
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        body = data[start:]
        if (cut := self.site.cut_after.pop(self.path, None)) is not None:
            body = body[:cut]
        self.wfile.write(body)

    def _start(self, tag: str) -> int:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(match[1]) if match and self.headers.get("If-Range") == tag else 0

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[Site]:
    site = Site(certificate=folder / "ca.pem")
    key_file = folder / "key.pem"
    _certificate(site.certificate, key_file)
    handler = type("SiteHandler", (Handler,), {"site": site})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = False
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(site.certificate, key_file)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    site.url = f"https://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        site.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _certificate(certificate: Path, key_file: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
