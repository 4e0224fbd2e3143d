"""Macvtaps on functions, in the kernel (rtnetlink(7)). What they are for stands in ``functiontaps``."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from carmel.errors import CarmelError, Refused, Unavailable
from carmel.network.dataplane import PortHandles
from carmel.network.host.apply import with_ipv6_as_usual, without_ipv6
from carmel.network.host.refusals import not_permitted
from carmel.network.host.taps import open_macvtap
from carmel.network.names import LINK_GROUP, is_function_tap

T = TypeVar("T")
_IFF_UP, _IFF_ALLMULTI = 0x1, 0x200
_ALIAS = "{}, function had mtu {}"
"""Kept by the kernel, so that whoever finds the macvtap can give the function back as it was."""
_HAD_MTU = re.compile(r"function had mtu ([0-9]+)$")


@dataclass(frozen=True, slots=True)
class _FunctionTap:
    """``mtu``: what the function had before."""

    name: str
    index: int
    function: int
    mtu: int | None = None


def join(name: str, function: int, alias: str, queues: int, mtu: int) -> Callable[[IPRoute], PortHandles]:
    """Work as ``FunctionTaps.join`` says."""

    def work(route: IPRoute) -> PortHandles:
        for one in _all(route):
            if one.name == name or one.function == function:
                _remove(route, one)
        made = _make(route, name, function, alias, mtu)
        try:
            return open_macvtap(name, made.index, queues)
        except BaseException:
            _remove(route, made)
            raise

    return _explaining(work, name)


def keep(wanted: Callable[[str], bool]) -> Callable[[IPRoute], None]:
    """Remove all but those of these names."""

    def work(route: IPRoute) -> None:
        for one in _all(route):
            if not wanted(one.name):
                _remove(route, one)

    return _explaining(work, "a function's tap")


def _all(route: IPRoute) -> Iterator[_FunctionTap]:
    for message in list(route.get_links()):
        name = str(message.get_attr("IFLA_IFNAME"))
        if is_function_tap(name, message.get_attr("IFLA_GROUP") or 0):
            had = _HAD_MTU.search(message.get_attr("IFLA_IFALIAS") or "")
            function = int(message.get_attr("IFLA_LINK") or 0)
            yield _FunctionTap(name, int(message["index"]), function, int(had[1]) if had else None)


def _make(route: IPRoute, name: str, function: int, alias: str, mtu: int) -> _FunctionTap:
    # Before it is up: the host itself is to send nothing by it.
    _silence(route, function)
    route.link(
        "add", ifname=name, kind="macvtap", link=function, group=LINK_GROUP, macvtap_mode="passthru",
    )  # fmt: skip
    before = int(_link(route, function).get_attr("IFLA_MTU"))
    made = _FunctionTap(name, int(route.link_lookup(ifname=name)[0]), function, before)
    try:
        without_ipv6(name)
        route.link("set", index=made.index, ifalias=_ALIAS.format(alias[:200], before))
        _set_mtu(route, made, mtu)
        route.link("set", index=function, state="up")
        # All groups are the VM's too: which of them it has joined is not known here.
        route.link("set", index=made.index, flags=_IFF_UP | _IFF_ALLMULTI, change=_IFF_UP | _IFF_ALLMULTI)
    except BaseException:
        _remove(route, made)
        raise
    return made


def _set_mtu(route: IPRoute, tap: _FunctionTap, mtu: int) -> None:
    """The function's first: a macvtap has no more than that."""
    try:
        for index in (tap.function, tap.index):
            route.link("set", index=index, mtu=mtu)
    except NetlinkError as error:
        if error.code != errno.EINVAL:
            raise
        raise Refused(
            f"the SmartNIC's function cannot have its network's MTU of {mtu}",
            code="MTUNotPossible",
            hint="have the NIC allow it, or lower the Network's mtu",
        ) from error


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
        if tap.mtu is not None:
            route.link("set", index=tap.function, mtu=tap.mtu)
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
    return str(_link(route, index).get_attr("IFLA_IFNAME"))


def _link(route: IPRoute, index: int) -> Any:
    """Raises ``NetlinkError``, ``ENODEV``."""
    return route.get_links(index)[0]


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
