"""Which daemon has the host networks of a machine (of a network namespace, to be exact): one, and never two.

Whoever has them removes what is Carmel's and not wanted. So a daemon that was never asked for a host network leaves
those of others alone, and a second one on the same machine, a test's or a demo's, is refused as long as the first one
lives.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
from pathlib import Path

from carmel.errors import Refused, Unavailable
from carmel.network.host.refusals import not_permitted

_NAME = "\0carmel/host-networks"
"""An abstract Unix socket (unix(7)): of this network namespace alone, and gone with the process that holds it."""
_CAP_NET_ADMIN = 12
"""Its number (linux/capability.h)."""


class Claim:
    """``folder`` is there once this daemon, or an earlier one with the same state, had host networks."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: socket.socket | None = None

    def made_before(self) -> bool:
        return self._folder.is_dir()

    def take(self) -> None:
        """Raises ``Refused`` (``NotPermitted``, ``NotSupported``, ``AnotherDaemon``), ``Unavailable``."""
        if self._held is not None:
            return
        if sys.platform != "linux":
            raise Refused(
                "host networks need Linux", code="NotSupported", hint="use a network with provider user or cable"
            )
        if not _may_configure():
            raise not_permitted()
        held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            held.bind(_NAME)
        except OSError as exc:
            held.close()
            raise Refused(
                f"another carmeld ({_holder()}) has the host networks of this machine",
                code="AnotherDaemon",
                hint="end that one, or use networks with provider user here",
            ) from exc
        held.listen(1)
        self._held = held
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            self.release()
            raise Unavailable(f"{self._folder} cannot be made: {exc.strerror}", code="NotNoted") from exc

    def release(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None


def _holder() -> str:
    """Anybody may take a name, so it is said who did (unix(7), ``SO_PEERCRED``)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        try:
            asking.settimeout(1.0)
            asking.connect(_NAME)
            pid, uid, _ = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError:
            return "which ends just now"
    return f"process {pid} of user {uid}"


def _may_configure() -> bool:
    """By the capabilities in force (proc(5), ``CapEff``): root in a container may have none of them."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_NET_ADMIN & 1)
    return os.geteuid() == 0
