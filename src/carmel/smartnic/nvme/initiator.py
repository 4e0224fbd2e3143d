"""The effects of NVMe over TCP: connect, change, disconnect. Through the kernel's own files, without nvme-cli.

``root`` is ``/``, or a tree that behaves like it.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

from carmel.errors import CarmelError, Refused, Unavailable
from carmel.hardware.sysroot import Sysroot
from carmel.run import Command, Limits, Runner
from carmel.smartnic.nvme.fabrics import (
    CLASS,
    DEVICE,
    ChapKeys,
    Connection,
    Target,
    connect_options,
    read_connections,
)

_AWAY = frozenset(
    {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT, errno.ECONNRESET, errno.EIO}
    | {errno.EHOSTDOWN, errno.ENETDOWN, errno.EPIPE, errno.ENOTCONN, errno.EAGAIN}
)
_DENIED = frozenset({errno.EACCES, errno.EKEYREJECTED, errno.ENOKEY, errno.EPERM})
_MODULE = "nvme-tcp"


def write_file(path: Path, text: str) -> None:
    """One write, as the kernel wants it. Raises ``OSError``."""
    descriptor = os.open(path, (os.O_RDWR if path.name == "nvme-fabrics" else os.O_WRONLY) | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


class Initiator:
    """The kernel's initiator for NVMe over TCP. ``write`` is how its files are written."""

    def __init__(self, runner: Runner, root: Path = Path("/"), write: Callable[[Path, str], None] = write_file) -> None:
        self._runner = runner
        self._root = root
        self._write_file = write

    async def connections(self) -> tuple[Connection, ...]:
        return await asyncio.to_thread(lambda: read_connections(Sysroot(self._root)))

    async def ensure(self, target: Target, stall_seconds: int, keys: ChapKeys | None = None) -> Connection | None:
        """The connection to ``target``, made if there is none, with this stall; ``None``: it goes just now.

        Raises ``Refused`` (``NoInitiator``, ``TargetRefused``) and ``Unavailable`` (``PathAway``).
        """
        found = _to(target, await self.connections())
        if found is None:
            await self._require_device()
            options = connect_options(target, stall_seconds, keys)
            await asyncio.to_thread(self._connect, target, options, authenticated=keys is not None)
            found = _to(target, await self.connections())
        if found is not None and found.stall_seconds != stall_seconds:
            await asyncio.to_thread(self._write, f"{CLASS}/{found.name}/fast_io_fail_tmo", str(stall_seconds))
        return found

    async def disconnect(self, target: Target) -> None:
        """Gone already is fine. What waits for it fails."""
        found = _to(target, await self.connections())
        if found is not None:
            await asyncio.to_thread(self._write, f"{CLASS}/{found.name}/delete_controller", "1")

    async def _require_device(self) -> None:
        if await asyncio.to_thread((self._root / DEVICE).exists):
            return
        tried = await self._load()
        if not await asyncio.to_thread((self._root / DEVICE).exists):
            raise Refused(
                "this kernel has no initiator for NVMe over TCP",
                code="NoInitiator",
                hint=f"it is the module {_MODULE}: modprobe says {tried or 'that it is there, but it makes no device'}",
            )

    async def _load(self) -> str:
        """What modprobe said."""
        command = Command(["modprobe", _MODULE], limits=Limits(seconds=20))
        try:
            return (await self._runner.run(command, check=False)).last_words
        except CarmelError as error:
            return error.message

    def _connect(self, target: Target, options: str, *, authenticated: bool) -> None:
        try:
            self._write_file(self._root / DEVICE, options)
        except OSError as error:
            # It came in between, by whoever: that is what was wanted.
            if error.errno != errno.EALREADY:
                raise _explained(target, error, authenticated=authenticated) from error

    def _write(self, path: str, text: str) -> None:
        try:
            self._write_file(self._root / path, text)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Unavailable(f"the kernel does not take {text} for /{path}: {error.strerror}") from error


def _to(target: Target, connections: tuple[Connection, ...]) -> Connection | None:
    return next((one for one in connections if one.target == target and not one.state.startswith("deleting")), None)


def _explained(target: Target, error: OSError, *, authenticated: bool) -> CarmelError:
    place = f"{target.address} port {target.port}"
    if error.errno in _AWAY:
        return Unavailable(f"no NVMe target answers at {place}: {error.strerror}", code="PathAway")
    if error.errno in _DENIED:
        return Refused(
            f"the NVMe target at {place} does not let this NIC in: {error.strerror}",
            code="TargetRefused",
            hint=f"is {target.host_nqn} allowed there, and the key of spec.source.remote.authSecretRef the target's?",
        )
    kernel = (
        ", and does this kernel know dhchap_secret (CONFIG_NVME_AUTH; Debian 12's does not)" if authenticated else ""
    )
    return Refused(
        f"the kernel cannot connect to {target.subsystem_nqn} at {place}: {error.strerror}",
        code="TargetRefused",
        hint=f"does the subsystem exist there, does it allow {target.host_nqn}{kernel}? dmesg says more",
        retryable=True,
    )
