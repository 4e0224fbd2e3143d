"""Host ports for forwards: those that were asked for, and those that this host chooses.

A port that is chosen depends on the VM, the NIC and the guest's port alone, then on what is free: so it is the same
again after a restart even where nobody remembers it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import socket
from collections.abc import Callable
from dataclasses import dataclass

from carmel.errors import Refused
from carmel.resources.virtualmachine import Protocol

FIRST_PORT, LAST_PORT = 22000, 31999
"""Below what Linux and macOS give to outgoing connections (32768 and 49152 upwards)."""


@dataclass(frozen=True, slots=True)
class HostPort:
    """One port of the host. ``address`` is IPv4."""

    protocol: Protocol
    address: str
    port: int


IsFree = Callable[[HostPort], bool]


def choose(protocol: Protocol, address: str, identity: str, before: int | None, free: IsFree) -> HostPort:
    """``before`` if it is free, else the first free one from where ``identity`` points. Raises ``Refused``."""
    span = LAST_PORT - FIRST_PORT + 1
    start = int.from_bytes(hashlib.sha256(identity.encode()).digest()[:4], "big") % span
    candidates = (FIRST_PORT + (start + step) % span for step in range(span))
    for port in (*(() if before is None else (before,)), *candidates):
        candidate = HostPort(protocol, address, port)
        if free(candidate):
            return candidate
    raise Refused(
        f"all {protocol.value} ports from {FIRST_PORT} to {LAST_PORT} on {address} are in use",
        code="PortInUse",
        hint="remove forwards that nobody needs",
    )


def require_free(wanted: HostPort, free: IsFree, field: str) -> HostPort:
    """Raises ``Refused`` (``PortInUse``)."""
    if free(wanted):
        return wanted
    raise Refused(
        f"the {wanted.protocol.value} port {wanted.port} on {wanted.address} is in use",
        code="PortInUse",
        hint="choose another hostPort, or leave it out and let the host choose; ss -lnp says who has it",
        field=field,
    )


def can_bind(wanted: HostPort) -> bool:
    """Whether this host would let a process listen there now.

    Raises ``Refused`` (``HostAddressUnknown``) when the host does not have the address, ``PortNotAllowed`` for a
    port that needs privileges.
    """
    kind = socket.SOCK_STREAM if wanted.protocol is Protocol.TCP else socket.SOCK_DGRAM
    with contextlib.closing(socket.socket(socket.AF_INET, kind)) as probe:
        if kind is socket.SOCK_STREAM:
            # Connections that end (TIME_WAIT) do not count; passt and QEMU set it too.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((wanted.address, wanted.port))
            if kind is socket.SOCK_STREAM:
                probe.listen(1)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                return False
            if exc.errno == errno.EADDRNOTAVAIL:
                raise Refused(
                    f"this host has no address {wanted.address}",
                    code="HostAddressUnknown",
                    hint="forward to 127.0.0.1, to 0.0.0.0 for all addresses, or to one that the host has",
                ) from exc
            if exc.errno in (errno.EACCES, errno.EPERM):
                raise Refused(
                    f"port {wanted.port} may be used by root only",
                    code="PortNotAllowed",
                    hint="choose a hostPort from 1024 upwards",
                ) from exc
            raise
    return True
