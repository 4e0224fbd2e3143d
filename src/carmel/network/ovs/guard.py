"""The source guard as flows: what ``host.guard`` says to nftables, said to Open vSwitch. Pure.

Checked are the frame's source, ARP's sender, the IP source, and the target of neighbour advertisements; DHCP servers
and routers are not played by VMs; other protocols than ARP and IP do not pass.
"""

from __future__ import annotations

from collections.abc import Iterator

from carmel.network.dataplane import PortPlan
from carmel.network.ovs.flows import Does, Match
from carmel.network.ovs.tables import Table, to

_ON = Does(to(Table.LEARN))
_DROPPED = Does(to(Table.DROPPED))
_FORBIDDEN = ("udp,tp_src=67", "udp6,tp_src=547", "icmp6,icmp_type=134", "icmp6,icmp_type=137")
"""DHCP by a server; router advertisements; redirects (RFC 4861)."""
_DENY, _TARGET, _TARGETS, _ALLOW = 90, 85, 84, 80


def guard_flows(port: PortPlan, ofport: int) -> Iterator[tuple[Match, Does]]:
    """``ofport`` is the port's number in OpenFlow, the cookie of what counts its dropped frames."""
    at = f"in_port={ofport}"
    if not port.source_guard:
        yield Match(Table.GUARD, 0, at), _ON
        return
    yield Match(Table.DROPPED, 0, at), Does("drop", ofport)
    yield Match(Table.GUARD, 0, at), _DROPPED
    yield from ((Match(Table.GUARD, _DENY, f"{at},{one}"), _DROPPED) for one in _FORBIDDEN)
    own = f"{at},dl_src={port.mac}"
    if not port.addresses:
        for kind in (f"arp,arp_sha={port.mac}", "ip", "ipv6"):
            yield Match(Table.GUARD, _ALLOW, f"{own},{kind}"), _ON
        return
    yield from ((Match(Table.GUARD, _ALLOW, f"{own},{one}"), _ON) for one in _fours(port))
    yield from _sixes(port, own)


def _fours(port: PortPlan) -> Iterator[str]:
    """Before it has its address: DHCP (RFC 2131, 4.1) and ARP probes (RFC 5227)."""
    yield "udp,nw_src=0.0.0.0,nw_dst=255.255.255.255,tp_src=68,tp_dst=67"
    yield f"arp,arp_sha={port.mac},arp_spa=0.0.0.0"
    for address in port.addresses:
        if address.version == 4:
            yield f"arp,arp_sha={port.mac},arp_spa={address}"
            yield f"ip,nw_src={address}"


def _sixes(port: PortPlan, own: str) -> Iterator[tuple[Match, Does]]:
    """Link-local addresses are the VM's to choose (RFC 7217). An advertisement (RFC 4861, 4.4) is of an own address,
    and from one: two questions, and so two tables."""
    addresses = [str(one) for one in port.addresses if one.version == 6]
    yield Match(Table.GUARD, _ALLOW, f"{own},ipv6"), Does(to(Table.SENDER6))
    yield Match(Table.GUARD, _TARGETS, f"{own},icmp6,icmp_type=136"), _DROPPED
    for target in ("fe80::/10", *addresses):
        fields = f"{own},icmp6,icmp_type=136,icmp_code=0,nd_target={target}"
        yield Match(Table.GUARD, _TARGET, fields), Does(to(Table.SENDER6))
    for source in ("::", "fe80::/10", *addresses):
        yield Match(Table.SENDER6, 1, f"{own},ipv6,ipv6_src={source}"), _ON
    yield Match(Table.SENDER6, 0, own), _DROPPED
