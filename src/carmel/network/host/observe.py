"""Reads links, addresses, VLANs, shapes and copies out of the kernel (rtnetlink(7))."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any

from pyroute2 import IPRoute

from carmel.network.dataplane import BondMode
from carmel.network.host.kernel import Copies, Interface, KernelState, Link, Vlan
from carmel.network.names import is_ours

CLSACT_INGRESS, CLSACT_EGRESS = 0xFFFFFFF2, 0xFFFFFFF3
"""TC_H_CLSACT with TC_H_MIN_INGRESS and TC_H_MIN_EGRESS (linux/pkt_sched.h)."""
REDIRECT, MIRROR = 1, 2
"""TCA_EGRESS_REDIR and TCA_EGRESS_MIRROR (linux/tc_act/tc_mirred.h)."""

_IFF_UP, _IFF_LOOPBACK = 0x1, 0x8
_PVID, _UNTAGGED = 0x2, 0x4
"""BRIDGE_VLAN_INFO_* (linux/if_bridge.h)."""
BOND_MODES = {1: BondMode.ACTIVE_BACKUP, 2: BondMode.BALANCE_XOR, 4: BondMode.LACP}
"""BOND_MODE_* (linux/if_bonding.h)."""
_ROOT = 0xFFFFFFFF
_SCOPE_LINK = 253


def observe(route: IPRoute) -> KernelState:
    messages = list(route.get_links())
    names = {int(message["index"]): str(message.get_attr("IFLA_IFNAME")) for message in messages}
    addresses = _addresses(route, names)
    vlans = _vlans(route, names)
    shapes, with_clsact = _qdiscs(route, names)
    links = {}
    for message in messages:
        name = names[int(message["index"])]
        index, group = int(message["index"]), message.get_attr("IFLA_GROUP") or 0
        links[name] = _link(
            message, names, addresses.get(name, frozenset()), vlans.get(name, frozenset()), shapes.get(name),
            _copies(route, index, names) if index in with_clsact and is_ours(name, group) else Copies(),
        )  # fmt: skip
    return KernelState(links)


def _link(
    message: Any,
    names: Mapping[int, str],
    addresses: frozenset[Interface],
    vlans: frozenset[Vlan],
    shape: tuple[int, int] | None,
    copies: Copies,
) -> Link:
    info = message.get_attr("IFLA_LINKINFO")
    kind = None if info is None else info.get_attr("IFLA_INFO_KIND")
    data = None if info is None else info.get_attr("IFLA_INFO_DATA")
    filtering = kind == "bridge" and data is not None and bool(data.get_attr("IFLA_BR_VLAN_FILTERING"))
    mode = data.get_attr("IFLA_BOND_MODE") if kind == "bond" and data is not None else None
    counts = message.get_attr("IFLA_STATS64") or {}
    return Link(
        name=message.get_attr("IFLA_IFNAME"),
        index=message["index"],
        kind=kind,
        group=message.get_attr("IFLA_GROUP") or 0,
        mac=message.get_attr("IFLA_ADDRESS") or "",
        mtu=message.get_attr("IFLA_MTU") or 0,
        alias=message.get_attr("IFLA_IFALIAS") or "",
        up=bool(message["flags"] & _IFF_UP),
        loopback=bool(message["flags"] & _IFF_LOOPBACK),
        master=names.get(message.get_attr("IFLA_MASTER") or 0),
        vlan_filtering=filtering,
        bond_mode=None if mode is None else BOND_MODES.get(mode, "?"),
        addresses=addresses,
        vlans=vlans,
        shape=shape,
        copies=copies,
        received=(counts.get("rx_packets", 0), counts.get("rx_bytes", 0)),
        sent=(counts.get("tx_packets", 0), counts.get("tx_bytes", 0)),
    )


def _addresses(route: IPRoute, names: Mapping[int, str]) -> dict[str, frozenset[Interface]]:
    """Without link-local ones: every link has those."""
    found: dict[str, set[Interface]] = {}
    for message in route.get_addr():
        if message["scope"] >= _SCOPE_LINK or message["index"] not in names:
            continue
        text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        address = ipaddress.ip_interface(f"{text}/{message['prefixlen']}")
        found.setdefault(names[message["index"]], set()).add(address)
    return {name: frozenset(some) for name, some in found.items()}


def _vlans(route: IPRoute, names: Mapping[int, str]) -> dict[str, frozenset[Vlan]]:
    """Empty where the kernel does not filter VLANs."""
    found: dict[str, frozenset[Vlan]] = {}
    for message in route.get_vlans():
        spec = message.get_attr("IFLA_AF_SPEC")
        if spec is None or message["index"] not in names:
            continue
        infos = [value for key, value in spec["attrs"] if key == "IFLA_BRIDGE_VLAN_INFO"]
        found[names[message["index"]]] = frozenset(
            Vlan(info["vid"], bool(info["flags"] & _PVID), bool(info["flags"] & _UNTAGGED)) for info in infos
        )
    return found


def _qdiscs(route: IPRoute, names: Mapping[int, str]) -> tuple[dict[str, tuple[int, int]], set[int]]:
    shapes, with_clsact = {}, set()
    for message in route.get_qdiscs():
        kind = message.get_attr("TCA_KIND")
        if kind == "clsact":
            with_clsact.add(int(message["index"]))
        elif kind == "tbf" and message["parent"] == _ROOT and message["index"] in names:
            parms = message.get_attr("TCA_OPTIONS").get_attr("TCA_TBF_PARMS")
            shapes[names[message["index"]]] = (int(parms["rate"]), int(parms["buffer"]))
    return shapes, with_clsact


def _copies(route: IPRoute, index: int, names: Mapping[int, str]) -> Copies:
    """What ``apply`` makes of Copies: mirrored only if both directions are."""
    ingress, egress = _actions(route, index, CLSACT_INGRESS), _actions(route, index, CLSACT_EGRESS)
    mirror = names.get(ingress.get(MIRROR, 0))
    if ingress.get(MIRROR) != egress.get(MIRROR):
        mirror = "?"
    return Copies(names.get(ingress.get(REDIRECT, 0)), mirror)


def _actions(route: IPRoute, index: int, parent: int) -> dict[int, int]:
    """By kind of action, the index of the link that it leads to."""
    found = {}
    for message in route.get_filters(index=index, parent=parent):
        options = message.get_attr("TCA_OPTIONS")
        actions = None if options is None else options.get_attr("TCA_U32_ACT")
        for _, action in [] if actions is None else actions["attrs"]:
            parms = action.get_attr("TCA_ACT_OPTIONS").get_attr("TCA_MIRRED_PARMS")
            found[int(parms["eaction"])] = int(parms["ifindex"])
    return found
