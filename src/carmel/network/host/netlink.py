"""The kernel's side of the plans: reads what is there, does single steps, opens taps. By rtnetlink(7).

All of it runs in one thread that lives in the network namespace it works on (setns(2) is a thread's own affair), so the
event loop never waits for the kernel, and nothing else of this process changes its namespace.
"""

from __future__ import annotations

import asyncio
import errno
import os
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
from carmel.network.host.taps import close_handles, open_tap
from carmel.network.netns import enter

T = TypeVar("T")


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
        return await self.open(lambda _route: open_tap(name, queues))

    async def open(self, work: Callable[[IPRoute], PortHandles]) -> PortHandles:
        """What ``work`` opens; it is closed again if nobody waits for it any more."""
        opening = asyncio.get_running_loop().run_in_executor(self._thread, lambda: work(self._connection()))
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

    def _connection(self) -> IPRoute:
        """It is what moves this thread into the namespace."""
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


def _close_unwanted(opening: asyncio.Future[PortHandles]) -> None:
    if opening.exception() is None:
        close_handles(opening.result())
