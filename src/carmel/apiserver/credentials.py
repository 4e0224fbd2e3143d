"""What a server needs to be believed, and its first user to be known: TLS material and the administrator's token.

All of it lies in ``Paths.pki`` (0700). Certificates are made by a child process (``pki``).
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import ssl
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from carmel.errors import Refused
from carmel.paths import Paths
from carmel.run import Command, Limits, Runner

_RENEW_BEFORE_SECONDS = 400 * 86400
_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where the files are. The keys and the token are readable by the daemon's user alone."""

    folder: Path

    @classmethod
    def of(cls, paths: Paths) -> Credentials:
        return cls(paths.pki)

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def certificate(self) -> Path:
        return self.folder / "server.crt"

    @property
    def key(self) -> Path:
        return self.folder / "server.key"

    @property
    def admin_token_file(self) -> Path:
        return self.folder / "admin.token"

    @property
    def port_file(self) -> Path:
        """The port that kubeconfigs name: kept, so that they stay valid after a restart or a reboot."""
        return self.folder / "https.port"

    def host_certificate(self, host: str) -> Path:
        """On a SmartNIC: what the host ``host`` is known by (``pki``)."""
        return self.folder / "hosts" / f"{host}.crt"

    def prepare(self) -> None:
        """Make the folder, or make it private again."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.chmod(0o700)

    def admin_token(self) -> str:
        """The administrator's token, made at the first start. Deleting the file and restarting makes another."""
        self.prepare()
        try:
            token = self.admin_token_file.read_text("ascii").strip()
        except (FileNotFoundError, UnicodeDecodeError):
            token = ""
        if len(token) >= _TOKEN_BYTES:
            self.admin_token_file.chmod(0o600)
            return token
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        write_private(self.admin_token_file, token + "\n")
        return token

    def remembered_port(self) -> int:
        """The port of the last run, or 0."""
        try:
            text = self.port_file.read_text("ascii").strip()
        except (OSError, UnicodeDecodeError):
            return 0
        return int(text) if text.isdigit() and 0 < int(text) < 65536 else 0

    def is_current(self, now: float, names: Collection[str] = ()) -> bool:
        """The server's certificate is there, is good for ``names`` and does not end soon."""
        try:
            facts = json.loads((self.folder / "server.json").read_bytes())
            ends, known = facts["notAfter"], set(facts.get("names", ()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False
        whole = self.authority.exists() and self.certificate.exists() and self.key.exists()
        return whole and known.issuperset(names) and isinstance(ends, int) and ends - now > _RENEW_BEFORE_SECONDS

    async def renew(self, runner: Runner, names: Collection[str] = ()) -> None:
        """Make what is missing or near its end; the authority stays, so that clients need not notice.

        The certificate is good for loopback, this machine's name, and ``names``: DNS names or addresses.
        """
        self.prepare()
        own = [name for name in {socket.gethostname(), socket.gethostname().partition(".")[0]} if _is_dns(name)]
        module = "carmel.apiserver.pki"
        argv: list[str | Path] = [Path(sys.executable), "-m", module, str(self.folder), *sorted({*own, *names})]
        await runner.run(Command(argv, limits=Limits(seconds=60)))

    async def tls_context(
        self, runner: Runner, names: Collection[str] = (), *, client_certificates: bool = False
    ) -> ssl.SSLContext:
        """The server's TLS: 1.2 and newer. ``client_certificates``: those that its own authority signed are taken, and
        who shows another is not let in. Raises ``Refused`` when there is no usable certificate to be had."""
        if not self.is_current(time.time(), names):
            await self.renew(runner, names)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            self.load_into(context)
        except (ssl.SSLError, OSError):
            await self.renew(runner, names)
            self.load_into(context)
        if client_certificates:
            context.verify_mode = ssl.CERT_OPTIONAL
            context.load_verify_locations(self.authority)
        return context

    def load_into(self, context: ssl.SSLContext) -> None:
        """New connections get the certificate that lies there now."""
        context.load_cert_chain(self.certificate, self.key)


def _is_dns(name: str) -> bool:
    return bool(name) and name.isascii() and all(letter.isalnum() or letter in "-." for letter in name)


def write_private(path: Path, text: str) -> None:
    """Whole or not at all, 0600 from the first moment."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(path)
    except OSError as error:
        raise Refused(f"{path} cannot be written: {error.strerror}", code="StateNotWritable") from error
