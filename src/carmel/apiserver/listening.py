"""The sockets that the API is served on: made, or refused with what to do about it."""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
import sys
from ipaddress import ip_address
from pathlib import Path

from carmel.errors import Refused
from carmel.paths import SOCKET_PATH_MAX_BYTES

_LOG = logging.getLogger(__name__)
_PREFERRED_PORTS = range(17443, 17453)
"""Below the ranges from which systems take ports for outgoing connections (Linux 32768, macOS 49152)."""
_IP_FREEBIND = 15
"""ip(7): an address that is not this machine's (yet). The same option counts for IPv6."""


def unix_listener(path: Path) -> socket.socket:
    """Raises ``Refused`` (``SocketPathTooLong``, ``SocketInUse``, ``SocketNotUsable``)."""
    if len(os.fsencode(path)) > SOCKET_PATH_MAX_BYTES:
        raise Refused(
            f"{path} is too long for a Unix socket",
            code="SocketPathTooLong",
            hint=f"choose a CARMEL_RUN_DIR so that the path has at most {SOCKET_PATH_MAX_BYTES} bytes",
        )
    path.parent.mkdir(mode=0o755 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound = False
    try:
        listener.bind(str(path))
        bound = True
        # Whoever may enter the folder may connect: the kernel says who it is, and bindings say what he may do.
        path.chmod(0o666 if os.geteuid() == 0 else 0o600)
        listener.listen(128)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        if bound:
            path.unlink(missing_ok=True)
        raise Refused(f"{path} cannot be listened on: {error.strerror}", code="SocketNotUsable") from error
    return listener


def https_listener(address: str, wanted: int, *, remembered: int, early: bool) -> socket.socket:
    """On port ``wanted``; 0: on that of the last run (``remembered``, 0 if unknown), or a free one. ``early``: even
    while the address is not there yet. Raises ``Refused`` (``PortInUse``, ``PortNotUsable``, ``AddressNotUsable``)."""
    listener = _bind(address, wanted, remembered=remembered, early=early)
    listener.listen(128)
    listener.setblocking(False)
    return listener


def _bind(address: str, wanted: int, *, remembered: int, early: bool) -> socket.socket:
    if wanted:
        bound = _bound(address, wanted, early=early)
        if isinstance(bound, OSError):
            raise _port_refused(address, wanted, bound)
        return bound
    for port in (*([remembered] if remembered else []), *_PREFERRED_PORTS, 0):
        bound = _bound(address, port, early=early)
        if isinstance(bound, OSError):
            if bound.errno == errno.EADDRNOTAVAIL:
                raise _port_refused(address, port, bound)
            continue
        if remembered and port != remembered:
            _LOG.warning(
                "port %d of the last run is in use; HTTPS is on %d now: make kubeconfigs anew",
                remembered,
                bound.getsockname()[1],
            )
        return bound
    raise Refused(f"there is no free TCP port on {address}", code="PortInUse")


def _bound(address: str, port: int, *, early: bool) -> socket.socket | OSError:
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    # The protocol is named, because asyncio turns Nagle's algorithm off only where it is: 40 ms an answer otherwise.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if early and sys.platform == "linux":
        listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
    try:
        listener.bind((address, port))
    except OSError as error:
        listener.close()
        return error
    return listener


def _port_refused(address: str, port: int, error: OSError) -> Refused:
    if error.errno == errno.EADDRNOTAVAIL:
        return Refused(
            f"{address} is not an address of this machine",
            code="AddressNotUsable",
            hint="choose another --https-address, or start carmeld once the network is up; 0.0.0.0 is every address",
        )
    if error.errno == errno.EADDRINUSE:
        return Refused(
            f"port {port} on {address} is in use by another program",
            code="PortInUse",
            hint=f"end that program (ss -ltnp 'sport = :{port}' names it), or choose another port for carmeld",
        )
    return Refused(f"port {port} on {address} cannot be used: {error.strerror}", code="PortNotUsable")


def _remove_stale(path: Path) -> None:
    """A socket that nobody listens on is left over from a daemon that was killed; anything else is not ours."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Refused(f"{path} is there, and it is no socket", code="SocketNotUsable", hint="move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise Refused(
        f"another daemon listens on {path}", code="SocketInUse", hint="stop it first, or use another CARMEL_RUN_DIR"
    )
