"""Does single steps to the kernel (rtnetlink(7)). Nothing here decides anything."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from carmel.network.host import steps
from carmel.network.host.observe import BOND_MODES, CLSACT_EGRESS, CLSACT_INGRESS
from carmel.network.names import LINK_GROUP, is_ours

_IPV6 = Path("/proc/sys/net/ipv6/conf")
_LATENCY = "100ms"
_SHAPE_HANDLE = 0x10000
_ROOT = 0xFFFFFFFF
_MAIN_TABLE, _SCOPE_LINK = 254, 253
_MADE_BY_THEMSELVES = {2, 9}
"""RTPROT_KERNEL with an address, RTPROT_RA with a router's next advertisement (linux/rtnetlink.h)."""
_ROUTE_ATTRIBUTES = ("dst", "gateway", "prefsrc", "priority")
_BOND_MODES = {mode: number for number, mode in BOND_MODES.items()}
_BRIDGE_SELF = 2
"""BRIDGE_FLAGS_SELF (linux/if_bridge.h)."""


def index_of(route: IPRoute, name: str) -> int:
    found = route.link_lookup(ifname=name)
    if not found:
        raise NetlinkError(errno.ENODEV, f"no link {name}")
    return int(found[0])


def apply(route: IPRoute, step: steps.Step) -> None:  # noqa: C901 - one case a step
    """Raises ``NetlinkError``."""
    match step:
        case steps.MakeBridge():
            _make_bridge(route, step)
        case steps.MakeBond(name, alias, mode):
            _make(route, name, alias, kind="bond", bond_mode=_BOND_MODES[mode], bond_miimon=100)
        case steps.MakeShaper(name, alias):
            _make(route, name, alias, kind="ifb")
        case steps.MarkPort(name, alias):
            route.link("set", index=index_of(route, name), group=LINK_GROUP, ifalias=_alias(alias))
            without_ipv6(name)
        case steps.Take(name, interface, alias):
            _take(route, name, interface, _alias(alias))
        case steps.GiveBack():
            _give_back(route, step)
        case steps.SetMtu(name, mtu):
            route.link("set", index=index_of(route, name), mtu=mtu)
        case steps.DisableIpv6(name):
            without_ipv6(name)
        case steps.SetUp(name):
            route.link("set", index=index_of(route, name), state="up")
        case steps.SetMaster(name, master, down_first):
            _set_master(route, name, master, down_first=down_first)
        case steps.AddAddress(name, address):
            add_address(route, index_of(route, name), address)
        case steps.RemoveAddress(name, address):
            route.addr("del", index=index_of(route, name), address=str(address.ip), prefixlen=address.network.prefixlen)
        case steps.AddVlan(name, vlan, own):
            flags = [*(["pvid"] if vlan.pvid else []), *(["untagged"] if vlan.untagged else [])]
            _vlan(route, "add", name, {"vid": vlan.vid, "flags": flags}, own=own)
        case steps.RemoveVlan(name, vid, own):
            _vlan(route, "del", name, {"vid": vid}, own=own)
        case steps.SetShape():
            _set_shape(route, step)
        case steps.SetCopies():
            _set_copies(route, step)
        case steps.TakeOver(source, target):
            take_over(route, index_of(route, source), index_of(route, target))
        case steps.Remove(name):
            with contextlib.suppress(NetlinkError):  # it may go by itself, as taps do
                route.link("del", index=index_of(route, name))


def _alias(text: str) -> str:
    """IFALIASZ is 256."""
    return text[:255]


def _make(route: IPRoute, name: str, alias: str, **attributes: Any) -> None:
    route.link("add", ifname=name, group=LINK_GROUP, **attributes)
    route.link("set", index=index_of(route, name), ifalias=_alias(alias))


def _make_bridge(route: IPRoute, step: steps.MakeBridge) -> None:
    extra: dict[str, Any] = {"address": step.mac} if step.mac else {}
    if step.vlan_filtering:
        extra |= {"br_vlan_filtering": 1, "br_vlan_default_pvid": 0}
    # Spanning tree is off: each tap would wait for 30 s. Multicast snooping has no querier here, and would drop ND.
    _make(route, step.name, step.alias, kind="bridge", br_mcast_snooping=0, br_stp_state=0, **extra)
    if not step.hosts:
        without_ipv6(step.name)
    route.link("set", index=index_of(route, step.name), mtu=step.mtu)


def without_ipv6(name: str) -> None:
    """VMs are not to reach this host by link-local addresses, nor to give it addresses by router advertisements."""
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        (_IPV6 / name / "disable_ipv6").write_text("1")


def with_ipv6_as_usual(name: str) -> None:
    with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
        (_IPV6 / name / "disable_ipv6").write_text((_IPV6 / "default" / "disable_ipv6").read_text())


def _take(route: IPRoute, name: str, interface: str, alias: str) -> None:
    """Down first: before Linux 6.2 no link is renamed that is up."""
    index = index_of(route, name)
    route.link("set", index=index, state="down")
    route.link("set", index=index, ifname=interface, group=LINK_GROUP, ifalias=alias)
    without_ipv6(interface)


def _give_back(route: IPRoute, step: steps.GiveBack) -> None:
    """What it is known again by goes last. Its own name may be another's by now: then the kernel chooses one."""
    index = index_of(route, step.name)
    route.link("set", index=index, state="down")
    route.link("set", index=index, master=0, mtu=step.mtu)
    with contextlib.suppress(NetlinkError):  # there may be none
        route.tc("del", "clsact", index=index)
    with contextlib.suppress(NetlinkError):
        route.tc("del", index=index, handle=0, parent=_ROOT)
    with_ipv6_as_usual(step.name)
    taken = bool(route.link_lookup(ifname=step.own))
    route.link("set", index=index, ifname="rep%d" if taken else step.own, group=0, ifalias="")


def _set_master(route: IPRoute, name: str, master: str | None, *, down_first: bool) -> None:
    index = index_of(route, name)
    if down_first:
        route.link("set", index=index, state="down")
    route.link("set", index=index, master=0 if master is None else index_of(route, master))


def _vlan(route: IPRoute, command: str, name: str, info: dict[str, Any], *, own: bool) -> None:
    flags = {"vlan_flags": _BRIDGE_SELF} if own else {}
    route.vlan_filter(command, index=index_of(route, name), vlan_info=info, **flags)


def _set_shape(route: IPRoute, step: steps.SetShape) -> None:
    index = index_of(route, step.name)
    if step.shape is None:
        route.tc("del", index=index, handle=0, parent=_ROOT)
        return
    route.tc(
        "replace", "tbf", index=index, handle=_SHAPE_HANDLE,
        rate=step.shape.bytes_per_second, burst=step.shape.burst_bytes, latency=_LATENCY,
    )  # fmt: skip


def _set_copies(route: IPRoute, step: steps.SetCopies) -> None:
    """Afresh each time: clsact goes with all of its filters."""
    index = index_of(route, step.name)
    with contextlib.suppress(NetlinkError):  # there may be none
        route.tc("del", "clsact", index=index)
    if not step.copies:
        return
    route.tc("add", "clsact", index=index)
    mirror = [] if step.copies.mirror is None else [_action(route, "mirror", step.copies.mirror)]
    redirect = [] if step.copies.redirect is None else [_action(route, "redirect", step.copies.redirect)]
    for parent, actions in ((CLSACT_INGRESS, mirror + redirect), (CLSACT_EGRESS, mirror)):
        if actions:
            # A u32 that compares nothing: every kernel with classes has it, not every one has matchall.
            route.tc(
                "add-filter", "u32", index=index, parent=parent, handle=0, prio=1, protocol=3,
                keys=["0x0/0x0+0"], target=_SHAPE_HANDLE, action=actions,
            )  # fmt: skip


def _action(route: IPRoute, action: str, to: str) -> dict[str, Any]:
    return {"kind": "mirred", "direction": "egress", "action": action, "ifindex": index_of(route, to)}


# -- addresses and routes -----------------------------------------------------------------------------------------
def add_address(route: IPRoute, index: int, address: ipaddress.IPv4Interface | ipaddress.IPv6Interface) -> None:
    route.addr("replace", index=index, address=str(address.ip), prefixlen=address.network.prefixlen)


def take_over(route: IPRoute, source: int, target: int) -> None:
    """Routes are read before the addresses go, which takes them along."""
    routes = routes_of(route, source)
    for message in route.get_addr(index=source):
        if message["scope"] >= _SCOPE_LINK:
            continue
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        route.addr("del", index=source, address=text, prefixlen=message["prefixlen"])
        add_address(route, target, ipaddress.ip_interface(f"{text}/{message['prefixlen']}"))
    route.link("set", index=target, state="up")
    for one in routes:
        route.route("replace", oif=target, **one)


def routes_of(route: IPRoute, index: int) -> list[dict[str, Any]]:
    """Those of the main table that somebody set, the plain ones first: others lead through them."""
    found = []
    for message in route.get_routes(oif=index, table=_MAIN_TABLE):
        if message["proto"] in _MADE_BY_THEMSELVES:
            continue
        values = {name: message.get(name) for name in _ROUTE_ATTRIBUTES if message.get(name) is not None}
        if message["dst_len"]:
            values["dst"] = f"{values['dst']}/{message['dst_len']}"
        else:
            values["dst"] = "0.0.0.0/0" if message["family"] == 2 else "::/0"
        found.append({"family": message["family"], "proto": message["proto"], "scope": message["scope"], **values})
    return sorted(found, key=lambda one: "gateway" in one)


def put_back(
    route: IPRoute, uplink: str, bridge: str, mtu: int, addresses: Sequence[str], routes: Sequence[dict[str, Any]]
) -> None:
    """An uplink as it was before ``bridge`` took it over."""
    index = index_of(route, uplink)
    route.link("set", index=index, master=0)
    for found in route.get_links(ifname=bridge) if route.link_lookup(ifname=bridge) else ():
        if is_ours(bridge, found.get_attr("IFLA_GROUP") or 0):
            route.link("del", index=found["index"])
    route.link("set", index=index, mtu=mtu, state="up")
    for address in addresses:
        add_address(route, index, ipaddress.ip_interface(address))
    for one in routes:
        route.route("replace", oif=index, **one)
