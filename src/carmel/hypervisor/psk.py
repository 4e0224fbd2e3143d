"""Pre-shared keys of TLS: how an NBD server and its client know each other."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Psk:
    """A name and a key (hexadecimal) that both ends have (RFC 4279). No clock is asked, as certificates ask it."""

    username: str
    key: str = field(repr=False)

    @property
    def line(self) -> bytes:
        """As GnuTLS' files of keys have it (psktool(1))."""
        return f"{self.username}:{self.key}\n".encode()
