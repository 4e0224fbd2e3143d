"""A SmartNIC's function that stays the host's, joined to a VM's NIC one to one: by a macvtap in mode passthru.

The kernel gives such a macvtap every frame that comes in by the function, and sends by the function what the VM sends,
unchanged (drivers/net/macvlan.c). No bridge, no filter and no address of the host is on the way: who switches is the
NIC. It goes when its function does, also when vfio-pci is to have that.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from carmel.errors import CarmelError, Refused, Unavailable
from carmel.network.dataplane import PortHandles
from carmel.network.host.apply import with_ipv6_as_usual, without_ipv6
from carmel.network.host.netlink import Netlink
from carmel.network.host.refusals import not_permitted
from carmel.network.host.taps import open_macvtap
from carmel.network.names import FUNCTION_TAP, LINK_GROUP, is_function_tap

T = TypeVar("T")
_IFF_UP, _IFF_ALLMULTI = 0x1, 0x200
_CLASS = Path("/sys/class/net")


@dataclass(frozen=True, slots=True)
class _FunctionTap:
    name: str
    index: int
    function: int


class FunctionTaps:
    """Macvtaps on functions, by name (``names.function_tap_name``). ``namespace`` as ``Netlink`` has it."""

    def __init__(self, namespace: Path | None = None) -> None:
        self._netlink = Netlink(namespace)

    async def join(self, name: str, function: int, alias: str, queues: int) -> PortHandles:
        """Join the interface with index ``function`` to descriptors, one a queue. What was made of this name, or of
        this function, before is removed.

        Raises ``Refused`` (``FunctionInUse``, ``KernelLacksFeature``, ``NoTapDevice``, ``NotPermitted``) and
        ``Unavailable``; then nothing is left of it.
        """

        def make(route: IPRoute) -> PortHandles:
            for one in _all(route):
                if one.name == name or one.function == function:
                    _remove(route, one)
            made = _make(route, name, function, alias)
            try:
                return open_macvtap(name, made.index, queues)
            except BaseException:
                _remove(route, made)
                raise

        return await self._netlink.open(_explaining(make, name))

    async def part(self, name: str) -> None:
        """Nothing to do is fine. The function is down then."""
        await self._keep(lambda known: known != name)

    async def keep_only(self, names: Collection[str]) -> None:
        """Remove what an earlier daemon made for VMs that ended."""
        if any(one not in names for one in await asyncio.to_thread(_seen)):
            await self._keep(lambda known: known in names)

    async def aclose(self) -> None:
        """What is joined stays."""
        await self._netlink.aclose()

    async def _keep(self, wanted: Callable[[str], bool]) -> None:
        def remove(route: IPRoute) -> None:
            for one in _all(route):
                if not wanted(one.name):
                    _remove(route, one)

        await self._netlink.call(_explaining(remove, "a function's tap"))


def _seen() -> list[str]:
    """By sysfs, which this can ask where there is no rtnetlink, too."""
    return [found.name for found in _CLASS.glob(f"{FUNCTION_TAP}*")]


def _all(route: IPRoute) -> Iterator[_FunctionTap]:
    for message in list(route.get_links()):
        name = str(message.get_attr("IFLA_IFNAME"))
        if is_function_tap(name, message.get_attr("IFLA_GROUP") or 0):
            yield _FunctionTap(name, int(message["index"]), int(message.get_attr("IFLA_LINK") or 0))


def _make(route: IPRoute, name: str, function: int, alias: str) -> _FunctionTap:
    # Before it is up: the host itself is to send nothing by it.
    _silence(route, function)
    route.link(
        "add", ifname=name, kind="macvtap", link=function, group=LINK_GROUP, macvtap_mode="passthru",
    )  # fmt: skip
    made = _FunctionTap(name, int(route.link_lookup(ifname=name)[0]), function)
    try:
        without_ipv6(name)
        route.link("set", index=made.index, ifalias=alias[:255])
        route.link("set", index=function, state="up")
        # All groups are the VM's too: which of them it has joined is not known here.
        route.link("set", index=made.index, flags=_IFF_UP | _IFF_ALLMULTI, change=_IFF_UP | _IFF_ALLMULTI)
    except BaseException:
        _remove(route, made)
        raise
    return made


def _silence(route: IPRoute, index: int) -> None:
    """udev may be about to rename it."""
    name = _name(route, index)
    without_ipv6(name)
    while (now := _name(route, index)) != name:
        name = now
        without_ipv6(name)


def _remove(route: IPRoute, tap: _FunctionTap) -> None:
    """Last the link by which all of it is found. That may be gone meanwhile, with its function."""
    try:
        route.link("set", index=tap.function, state="down")
        with_ipv6_as_usual(_name(route, tap.function))
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise
    try:
        route.link("del", index=tap.index)
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise


def _name(route: IPRoute, index: int) -> str:
    """Raises ``NetlinkError``, ``ENODEV``."""
    return str(route.get_links(index)[0].get_attr("IFLA_IFNAME"))


def _explaining(work: Callable[[IPRoute], T], name: str) -> Callable[[IPRoute], T]:
    def explained(route: IPRoute) -> T:
        try:
            return work(route)
        except NetlinkError as error:
            raise _explained(error, name) from error

    return explained


def _explained(error: NetlinkError, name: str) -> CarmelError:
    if error.code in (errno.EPERM, errno.EACCES):
        return not_permitted()
    if error.code in (errno.EBUSY, errno.EINVAL):
        return Refused(
            f"{name} cannot be made: the function's interface is part of something else",
            code="FunctionInUse",
            hint="take it out of bridges, bonds and macvlans of the host",
        )
    if error.code == errno.EOPNOTSUPP:
        return Refused(
            "this kernel has no macvtap", code="KernelLacksFeature", hint="software NICs need the module macvtap"
        )
    return Unavailable(f"the kernel refused {name}: {os.strerror(error.code)}", code="KernelRefused")
