"""The kernel's side of the plans: reads what is there, does single steps, opens taps. By rtnetlink(7) and /dev/net/tun.

All of it runs in one thread that lives in the network namespace it works on (setns(2) is a thread's own affair), so the
event loop never waits for the kernel, and nothing else of this process changes its namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from carmel.errors import CarmelError, Refused, Unavailable
from carmel.network.dataplane import PortHandles
from carmel.network.host.apply import apply
from carmel.network.host.kernel import KernelState
from carmel.network.host.observe import observe
from carmel.network.host.refusals import not_permitted
from carmel.network.host.steps import Step
from carmel.network.netns import enter

T = TypeVar("T")

_TUN, _VHOST = Path("/dev/net/tun"), Path("/dev/vhost-net")
_TUNSETIFF, _TUNSETVNETHDRSZ = 0x400454CA, 0x400454D8
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_MULTI_QUEUE = 0x0002, 0x1000, 0x4000, 0x0100
_VIRTIO_NET_HEADER_BYTES = 12


class Netlink:
    """``namespace`` is a network namespace's file; this process' own if it is absent."""

    def __init__(self, namespace: Path | None = None) -> None:
        self._namespace = namespace
        self._thread = ThreadPoolExecutor(1, "netlink")
        self._route: IPRoute | None = None

    async def observe(self) -> KernelState:
        return await self._do(lambda: observe(self._connection()))

    async def apply(self, steps: Sequence[Step]) -> None:
        """In order, until one fails. Raises ``Refused`` or ``Unavailable`` that names it."""

        def all_of_them() -> None:
            for step in steps:
                try:
                    apply(self._connection(), step)
                except NetlinkError as exc:
                    raise _explained(step, exc) from exc
                except OSError as exc:
                    raise Unavailable(f"cannot do {_in_words(step)}: {exc.strerror}", code="KernelRefused") from exc

        await self._do(all_of_them)

    async def open_tap(self, name: str, queues: int) -> PortHandles:
        """A tap that goes with its last descriptor. Raises ``Refused`` without ``/dev/net/tun`` or the privilege."""
        opening = asyncio.get_running_loop().run_in_executor(self._thread, self._open_tap, name, queues)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_unwanted)
            raise

    async def call(self, work: Callable[[IPRoute], T]) -> T:
        """Anything else that needs the namespace."""
        return await self._do(lambda: work(self._connection()))

    async def aclose(self) -> None:
        def close() -> None:
            if self._route is not None:
                self._route.close()
                self._route = None

        await self._do(close)
        self._thread.shutdown(wait=False)

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _open_tap(self, name: str, queues: int) -> PortHandles:
        self._connection()  # it is what moves this thread into the namespace
        return _open_tap(name, queues)

    def _connection(self) -> IPRoute:
        if self._route is None:
            if self._namespace is not None:
                enter(self._namespace)
            self._route = IPRoute()
        return self._route


def _in_words(step: Step) -> str:
    return f"{type(step).__name__} {getattr(step, 'name', '')}".strip()


def _explained(step: Step, exc: NetlinkError) -> CarmelError:
    what = _in_words(step)
    if exc.code in (errno.EPERM, errno.EACCES):
        return not_permitted()
    if exc.code in (errno.EOPNOTSUPP, errno.ENOENT, errno.EPROTONOSUPPORT):
        return Refused(
            f"this kernel cannot do what the network needs ({what}): {os.strerror(exc.code)}",
            code="KernelLacksFeature",
            hint="bridges need VLAN filtering, bonds the module bonding, limits sch_tbf, cls_u32, act_mirred and ifb",
        )
    return Unavailable(f"the kernel refused {what}: {os.strerror(exc.code)}", code="KernelRefused")


def _open_tap(name: str, queues: int) -> PortHandles:
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | (_IFF_MULTI_QUEUE if queues > 1 else 0)
    with contextlib.ExitStack() as opened:
        taps = [_open(_TUN, opened) for _ in range(queues)]
        for tap in taps:
            try:
                fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
                fcntl.ioctl(tap, _TUNSETVNETHDRSZ, struct.pack("i", _VIRTIO_NET_HEADER_BYTES))
            except OSError as exc:
                raise _tap_refused(name, exc) from exc
        vhost = [_open(_VHOST, opened) for _ in range(queues)] if os.access(_VHOST, os.R_OK | os.W_OK) else []
        opened.pop_all()
    return PortHandles(tuple(taps), tuple(vhost))


def _close_unwanted(opening: asyncio.Future[PortHandles]) -> None:
    if opening.exception() is None:
        for fd in (*opening.result().taps, *opening.result().vhost):
            os.close(fd)


def _open(device: Path, opened: contextlib.ExitStack) -> int:
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        raise Refused(
            f"cannot open {device}: {exc.strerror}",
            code="NoTapDevice",
            hint="host networks need the module tun and access to the device; user networks need neither",
        ) from exc
    opened.callback(os.close, fd)
    return fd


def _tap_refused(name: str, exc: OSError) -> CarmelError:
    if exc.errno == errno.EPERM:
        return not_permitted()
    if exc.errno in (errno.EBUSY, errno.EINVAL):
        # EINVAL: there is one of this name with another number of queues.
        return Refused(f"the port {name} is in use already", code="PortInUse", hint="stop the VM that has it")
    return Unavailable(f"cannot make the port {name}: {exc.strerror}", code="KernelRefused")
