"""Masquerading for networks of provider nat: nftables' ip family, a table of our own. Pure.

VMs of such a network reach out as this host. From outside, and from other such networks, only answers come in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from carmel.network.dataplane import NetworkPlan
from carmel.network.names import NAT_TABLE, nat_bridge

LOADED = f"list table ip {NAT_TABLE}"
"""What ``nat_script`` wants to know."""
_STAMP = "made-of-"


def nat_script(networks: Sequence[NetworkPlan], table: Sequence[Mapping[str, Any]] | None) -> str:
    """One transaction to what ``networks`` need; empty if ``table``, the one that is loaded, is just that."""
    rules = [rule for network in networks if network.nat is not None for rule in _rules(network)]
    if not rules:
        return "" if table is None else f"delete table ip {NAT_TABLE}\n"
    stamp = _STAMP + hashlib.sha256("\n".join(rules).encode()).hexdigest()[:16]
    here = {item["chain"]["name"] for item in table or () if "chain" in item}
    loaded = [item for item in table or () if "rule" in item]
    if stamp in here and len(loaded) == len(rules):
        return ""
    lines = [
        f"add table ip {NAT_TABLE}",
        f"delete table ip {NAT_TABLE}",
        f"add table ip {NAT_TABLE}",
        f"add chain ip {NAT_TABLE} {stamp}",
        f"add chain ip {NAT_TABLE} postrouting {{ type nat hook postrouting priority 100; }}",
        f"add chain ip {NAT_TABLE} forward {{ type filter hook forward priority 0; policy accept; }}",
        *(f"add rule ip {NAT_TABLE} {rule}" for rule in rules),
    ]
    return "\n".join(lines) + "\n"


def _rules(network: NetworkPlan) -> Iterator[str]:
    assert network.nat is not None
    bridge, subnet = nat_bridge(network.name), network.nat.subnet
    yield f"postrouting ip saddr {subnet} oifname != {bridge} masquerade"
    yield f"forward oifname {bridge} ct state established,related accept"
    # Not those that only cross the bridge, on hosts where bridged packets are shown to this hook (br_netfilter).
    yield f"forward oifname {bridge} iifname != {bridge} drop"
