"""Where a server is and how to say who we are: a Unix socket, or an HTTPS URL with its certificates and token."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class UnixEndpoint:
    """The daemon's socket on this machine. The kernel tells the daemon who we are (peer credentials)."""

    socket: Path

    def __str__(self) -> str:
        return str(self.socket)


@dataclass(frozen=True, slots=True)
class HttpsEndpoint:
    """A server somewhere. ``ca``, ``certificate`` and ``key`` are PEM text; without ``ca`` the system's own count.

    ``base_path`` is what a URL has before ``/api`` (a proxy's prefix), without a slash at its end.
    """

    host: str
    port: int
    base_path: str = ""
    ca: str | None = None
    server_name: str | None = None
    verify: bool = True
    token: str | None = field(default=None, repr=False)
    certificate: str | None = None
    key: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}{self.base_path}"


Endpoint = UnixEndpoint | HttpsEndpoint


@dataclass(frozen=True, slots=True)
class Context:
    """A server by a name, and the namespace that is meant when none is given."""

    name: str
    endpoint: Endpoint
    namespace: str = "default"
