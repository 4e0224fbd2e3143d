"""The source guard: what a VM may send as itself. Pure; nftables' bridge family, before the firewall (-300 and -100).

Each guarded port has a chain of its own, named by what it says, and a map leads there by the port's name. So a port's
change is one transaction that swaps one element, and the map alone tells what is loaded.

Checked are the frame's source, ARP's sender, the IP source, and the target of neighbour advertisements; DHCP servers
and routers are not played by VMs; other protocols than ARP and IP do not pass. Link-local IPv6 addresses are the VM's
to choose (RFC 7217): of them only the MAC address is checked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any

from carmel.network.dataplane import PortPlan
from carmel.network.host import learning
from carmel.network.names import GUARD_TABLE

LOADED = f"list chain bridge {GUARD_TABLE} prerouting; list map bridge {GUARD_TABLE} ports"
"""What ``loaded_chains`` wants to know: it does not grow with what the ports' chains say."""
TABLE = f"list table bridge {GUARD_TABLE}"
COUNTERS = f"list counters table bridge {GUARD_TABLE}"
"""For ``dropped_packets``."""

_HEADER = f"""
add table bridge {GUARD_TABLE}
add map bridge {GUARD_TABLE} ports {{ type ifname : verdict; }}
add chain bridge {GUARD_TABLE} prerouting {{ type filter hook prerouting priority -300; policy accept; }}
add rule bridge {GUARD_TABLE} prerouting iifname vmap @ports
"""
_LEARNS = "-l"
"""How the names of chains end that note addresses."""
_UNSPECIFIED = str(IPv4Address(0))
_NOT_LINK_LOCAL_TARGET = "@th,64,10 != 0x3fa"
"""Of a neighbour advertisement (RFC 4861, 4.4), 8 bytes into ICMPv6: the first bits are not those of fe80::/10."""


def guard_script(ports: Sequence[PortPlan], loaded: Mapping[str, str] | None) -> str:
    """One transaction from ``loaded`` (see ``loaded_chains``) to ``ports``; empty when there is nothing to do.

    Ports of ``loaded`` that are not among ``ports`` lose their chain.
    """
    wanted = {port.interface: (_chain_name(port), port) for port in ports if port.source_guard}
    lines: list[str] = []
    before = loaded or {}
    for interface, chain in before.items():
        if interface not in wanted:
            lines += [_del_element(interface, chain), *_remove(chain), f"delete counter {_at(interface)}"]
            lines += learning.remove(interface) if _learned(chain) else ()
    for interface, (chain, port) in wanted.items():
        old = before.get(interface)
        if old == chain:
            continue
        if old is None:
            lines.append(f"add counter {_at(interface)}")
        if _learned(chain) and not (old is not None and _learned(old)):
            lines += learning.make(interface)
        lines += [f"add chain {_at(chain)}", *(f"add rule {_at(chain)} {rule}" for rule in _rules(port))]
        if old is not None:
            lines.append(_del_element(interface, old))
        lines.append(f"add element {_at('ports')} {{ {interface} : jump {chain} }}")
        if old is not None:
            lines += _remove(old)
            lines += learning.remove(interface) if _learned(old) and not _learned(chain) else ()
    if not lines and loaded is not None:
        return ""
    return (_HEADER if loaded is None else "") + "\n".join(lines) + "\n"


def loaded_chains(items: Sequence[Mapping[str, Any]] | None) -> dict[str, str] | None:
    """By port the chain that it is led to; ``None``: there is no table, or it is not whole."""
    if items is None:
        return None
    hooked = any(item.get("chain", {}).get("name") == "prerouting" for item in items)
    leads = any(item.get("rule", {}).get("chain") == "prerouting" for item in items)
    maps = [item["map"] for item in items if item.get("map", {}).get("name") == "ports"]
    if not hooked or not leads or not maps:
        return None
    return {name: verdict["jump"]["target"] for name, verdict in maps[0].get("elem", [])}


def dropped_packets(items: Sequence[Mapping[str, Any]] | None) -> dict[str, int]:
    """By port's interface. Counters of other tables are left out, should nft list them."""
    counters = (item["counter"] for item in items or () if "counter" in item)
    return {one["name"]: int(one["packets"]) for one in counters if one["table"] == GUARD_TABLE}


def afresh(script: str) -> str:
    """In place of whatever there is under our name."""
    return f"add table bridge {GUARD_TABLE}\ndelete table bridge {GUARD_TABLE}\n{script}"


def _rules(port: PortPlan) -> Iterator[str]:
    drop = f"counter name {port.interface} drop"
    four = [str(one) for one in port.addresses if one.version == 4]
    six = [one for one in port.addresses if one.version == 6]
    yield f"ether saddr != {port.mac} {drop}"
    yield f"meta protocol arp arp saddr ether != {port.mac} {drop}"
    # DHCP by a server; router advertisements; redirects (RFC 4861).
    yield f"meta protocol ip udp sport 67 {drop}"
    yield f"meta protocol ip6 udp sport 547 {drop}"
    yield f"meta protocol ip6 icmpv6 type {{ 134, 137 }} {drop}"
    if not port.addresses:
        yield from learning.rules(port)
        yield "meta protocol { arp, ip, ip6 } accept"
        yield drop
        return
    # Before it has its address: DHCP (RFC 2131, 4.1) and ARP probes (RFC 5227).
    yield "meta protocol ip ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp sport 68 udp dport 67 accept"
    yield f"meta protocol arp arp saddr ip {{ {', '.join([_UNSPECIFIED, *four])} }} accept"
    if four:
        yield f"meta protocol ip ip saddr {{ {', '.join(four)} }} accept"
    own = f" @th,64,128 != {{ {', '.join(f'0x{int(one):x}' for one in six)} }}" if six else ""
    yield f"meta protocol ip6 icmpv6 type 136 {_NOT_LINK_LOCAL_TARGET}{own} {drop}"
    yield f"meta protocol ip6 ip6 saddr {{ {', '.join(['::', 'fe80::/10', *map(str, six)])} }} accept"
    yield drop


def _chain_name(port: PortPlan) -> str:
    digest = hashlib.sha256("\n".join(_rules(port)).encode()).hexdigest()[:12]
    return f"{port.interface}-{digest}{_LEARNS if learning.learns(port) else ''}"


def _learned(chain: str) -> bool:
    """Whether it fills sets."""
    return chain.endswith(_LEARNS)


def _at(name: str) -> str:
    return f"bridge {GUARD_TABLE} {name}"


def _del_element(interface: str, chain: str) -> str:
    return f"delete element {_at('ports')} {{ {interface} : jump {chain} }}"


def _remove(chain: str) -> tuple[str, str]:
    return f"flush chain {_at(chain)}", f"delete chain {_at(chain)}"
