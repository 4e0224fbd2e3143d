"""The keys of a lab machine, made where its administrator is and handed to it in a seed that nobody else reads.

So its API is trusted from the first connection on, and an emulated machine need not make certificates itself.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shlex
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from carmel.run import Command, SystemRunner

NIC_ADDRESS = "192.168.100.2"
"""Of a SmartNIC, on the link to its host."""
LONE_ADDRESS = "10.0.2.15"
"""Of a SmartNIC whose host leads nobody to it: of its first NIC, in a user network."""
_PKI = "/var/lib/carmel/pki"
_ROLE = "/run/carmel.role"
# As the daemon's ``apiserver.credentials`` names them. A host's authority itself stays here and is forgotten: it has
# signed what it was made for.
_FILES = ("ca.crt", "server.crt", "server.key", "server.json")
_TOKEN_FILE = "admin.token"  # noqa: S105 - the name of a file


@dataclass(frozen=True, slots=True)
class Keys:
    """``authority`` (PEM) is what the client trusts, ``token`` the administrator's; ``files`` what the daemon reads.

    Of a SmartNIC: ``client`` is what its host is known by, the keys of a Secret (``ca.crt``, ``tls.crt``, ``tls.key``),
    and ``address`` where it listens, if not on the link to its host.
    """

    authority: str
    token: str = field(repr=False)
    files: Mapping[str, str] = field(repr=False)
    role: str = ""
    address: str = ""
    client: Mapping[str, str] = field(default_factory=dict, repr=False)

    def script(self) -> str:
        """User data for a ``lab-host``: a script that puts the files in their place."""
        lines = ["#!/bin/sh", "# The keys of this machine. Who has them is its administrator.", "umask 077"]
        lines += [f"mkdir -p {_PKI}/hosts", f"cd {_PKI} || exit 1"]
        for name, text in self.files.items():
            # Whole or not at all: a machine may lose its power at any time.
            lines.append(f"printf %s {shlex.quote(text)} >{name}.new && mv {name}.new {name} || exit 1")
        if self.role:
            lines.append(f"echo {self.role} {self.address}".rstrip() + f" >{_ROLE}")
        # A host with systemd is told where to listen; the small one always does.
        listen = "CARMEL_HTTPS_ADDRESS=0.0.0.0 CARMEL_HTTPS_PORT=17443"
        lines.append(f"[ ! -d /etc/carmel ] || printf '%s\\n' {listen} >/etc/carmel/carmeld.env")
        return "\n".join([*lines, "sync", ""])


def make_keys() -> Keys:
    """New ones, good for this machine's loopback address, which leads to the lab machine."""
    with tempfile.TemporaryDirectory(prefix="carmel-lab-") as name:
        folder = Path(name)
        _sign(folder)
        return _keys(folder, _FILES)


def make_nic_keys(role: str, host: str) -> Keys:
    """New ones for a SmartNIC, which the machine ``host`` has: it is reached through that one's relay.

    It keeps its authority: to end a certificate of its host it signs another.
    """
    with tempfile.TemporaryDirectory(prefix="carmel-lab-") as name:
        folder = Path(name)
        _sign(folder, NIC_ADDRESS)
        client = json.loads(_sign(folder, "--client", host))
        signed = [str(path.relative_to(folder)) for path in folder.glob("hosts/*.crt")]
        return replace(_keys(folder, (*_FILES, "ca.key", *signed)), role=role, client=client)


def make_lone_nic_keys(role: str) -> Keys:
    """New ones for a SmartNIC whose host has none: its administrators reach it by a port of its own, and nobody else is
    known to it."""
    with tempfile.TemporaryDirectory(prefix="carmel-lab-") as name:
        folder = Path(name)
        _sign(folder)
        return replace(_keys(folder, (*_FILES, "ca.key")), role=role, address=LONE_ADDRESS)


def _sign(folder: Path, *words: str) -> bytes:
    command = Command([Path(sys.executable), "-m", "carmel.apiserver.pki", folder, *words])
    return asyncio.run(SystemRunner().run(command)).stdout


def _keys(folder: Path, names: tuple[str, ...]) -> Keys:
    files = {name: (folder / name).read_text("ascii") for name in names}
    token = secrets.token_urlsafe(32)
    return Keys(files["ca.crt"], token, {**files, _TOKEN_FILE: f"{token}\n"})
