"""What a VM sends as somebody else never leaves; what it sends as itself does."""

from __future__ import annotations

import ipaddress
import os
import struct
from dataclasses import replace

import pytest

from carmel.errors import Refused
from carmel.network.dataplane import PortPlan
from carmel.network.host.guard import LOADED, guard_script, loaded_chains
from carmel.network.host.learning import LEARNED, learned
from carmel.network.host.netlink import Netlink
from carmel.network.host.nft import Nft
from carmel.run import SystemRunner
from tests.system.network.host.lab import Lab, Tap, arp, ethernet, nat, port, udp

_LAST = b"the last frame"
_THEIRS = "52:54:00:99:99:99"
_TYPE_ARP, _TYPE_IPV6, _TYPE_LLDP, _TYPE_VLAN = 0x0806, 0x86DD, 0x88CC, 0x8100
_OWN_IPV6, _OTHER_IPV6 = "fd00::5", "fd00::6"


def _advertisement(source: str, target: str, text: bytes, kind: int = 136) -> bytes:
    """ICMPv6 of a neighbour (136) or router (134); the checksum is nobody's business here."""
    body = struct.pack("!BBHI", kind, 0, 0, 0x60000000) + ipaddress.IPv6Address(target).packed + text
    head = struct.pack("!IHBB", 0x60000000, len(body), 58, 255)
    return head + ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address("ff02::1").packed + body


def _spoofed(mac: str, own: str, neighbour: str) -> dict[str, bytes]:
    return {
        "MAC": ethernet(_THEIRS, udp(own, b"spoofed")),
        "IP": ethernet(mac, udp(neighbour, b"spoofed")),
        "IP in a VLAN": ethernet(mac, udp(neighbour, b"spoofed"), vlan=7),
        "two VLAN tags": ethernet(mac, struct.pack("!HH", 7, 0x0800) + udp(own, b"spoofed"), _TYPE_VLAN, vlan=5),
        "ARP sender's IP": ethernet(mac, arp(mac, neighbour, b"spoofed"), _TYPE_ARP),
        "ARP sender's MAC": ethernet(mac, arp(_THEIRS, own, b"spoofed"), _TYPE_ARP),
        "DHCP server": ethernet(mac, udp(own, b"spoofed", ports=(67, 68))),
        "router": ethernet(mac, _advertisement("fe80::1", "fe80::1", b"spoofed", 134), _TYPE_IPV6),
        "neighbour": ethernet(mac, _advertisement("fe80::1", _OTHER_IPV6, b"spoofed"), _TYPE_IPV6),
        "neighbour from another": ethernet(mac, _advertisement(_OTHER_IPV6, _OWN_IPV6, b"spoofed"), _TYPE_IPV6),
        "IPv6": ethernet(mac, _advertisement(_OTHER_IPV6, "::", b"spoofed", 135), _TYPE_IPV6),
        "another protocol": ethernet(mac, b"spoofed", _TYPE_LLDP),
    }


def _honest(mac: str, own: str) -> dict[str, bytes]:
    return {
        "IP": ethernet(mac, udp(own, b"honest")),
        "ARP": ethernet(mac, arp(mac, own, b"honest"), _TYPE_ARP),
        "ARP probe": ethernet(mac, arp(mac, "0.0.0.0", b"honest"), _TYPE_ARP),
        "DHCP client": ethernet(mac, udp("0.0.0.0", b"honest", ports=(68, 67))),
        "neighbour": ethernet(mac, _advertisement(_OWN_IPV6, _OWN_IPV6, b"honest"), _TYPE_IPV6),
        "link-local neighbour": ethernet(mac, _advertisement("fe80::5", "fe80::5", b"honest"), _TYPE_IPV6),
    }


async def test_addresses_that_nobody_gave_are_learned_from_what_passed_the_guard(lab: Lab) -> None:
    """As on a network with an uplink, on a bridge that every kernel can make."""
    stranger = PortPlan("stranger", "eth0", "lan", "52:54:00:00:00:07")
    witness = replace(port("witness", nat()), source_guard=False)
    nft = Nft(SystemRunner(), lab.host.path)
    netlink = Netlink(lab.host.path)
    await lab.host.ip("link add lan0 type bridge")
    await lab.host.ip("link set lan0 up")
    taps = []
    for plan in (stranger, witness):
        taps.append(Tap(plan, await netlink.open_tap(plan.interface, 1)))
        await lab.host.ip(f"link set {plan.interface} master lan0 up")
    await nft.load(guard_script([stranger, witness], None))
    mac = stranger.mac
    taps[0].send(ethernet(mac, arp(mac, "192.0.2.7"), _TYPE_ARP))
    taps[0].send(ethernet(mac, arp(mac, "0.0.0.0"), _TYPE_ARP))
    taps[0].send(ethernet(mac, arp(_THEIRS, "192.0.2.9"), _TYPE_ARP))
    for source in (_OWN_IPV6, "fe80::5", "::"):
        taps[0].send(ethernet(mac, _advertisement(source, _OWN_IPV6, b"", 135), _TYPE_IPV6))
    # More than there is room for go through all the same.
    for number in range(40):
        taps[0].send(ethernet(mac, arp(mac, f"198.51.100.{number}"), _TYPE_ARP))
    taps[0].send(ethernet(mac, arp(mac, "192.0.2.7", _LAST), _TYPE_ARP))
    await taps[1].until(_LAST)
    # Names and values as the firewall's sets have them.
    await nft.load("add table bridge other\nadd set bridge other vms-4 { type ipv4_addr; elements = { 10.0.0.1 }; }\n")
    found = learned(await nft.items(LEARNED))
    assert set(found) == {stranger.interface}
    four = {str(one) for one in found[stranger.interface] if one.version == 4}
    assert "192.0.2.7" in four
    assert not four & {"0.0.0.0", "192.0.2.9"}
    assert len(four) == 8
    assert {str(one) for one in found[stranger.interface] if one.version == 6} == {_OWN_IPV6}
    # With addresses of its own it learns no more.
    given = replace(stranger, addresses=(ipaddress.ip_address("192.0.2.7"),))
    await nft.load(guard_script([given, witness], loaded_chains(await nft.items(LOADED))))
    assert learned(await nft.items(LEARNED)) == {}
    for tap in taps:
        os.close(tap.fd)
    await netlink.aclose()
    await nft.load("delete table bridge other\n")
    await lab.host.ip("link delete lan0")


@pytest.mark.parametrize("later", [False, True])
async def test_spoofed_frames_never_leave_and_are_counted(lab: Lab, later: bool) -> None:
    """``later``: the guard is switched on while the port is in use."""
    network = nat()
    await lab.plane.ensure_network(network)
    plan = port("one", network)
    own, mac = plan.addresses[0], plan.mac
    neighbour = port("other", network)
    tap = await lab.plug(replace(plan, source_guard=not later))
    witness = await lab.plug(replace(neighbour, source_guard=False))
    if later:
        tap.send(ethernet(_THEIRS, udp(str(own), b"before the guard")))
        await witness.until(b"before the guard")
        await lab.plane.update(plan)
    spoofed = _spoofed(mac, str(own), str(neighbour.addresses[0]))
    for frame in spoofed.values():
        tap.send(frame)
    honest = {name: frame for name, frame in _honest(mac, str(own)).items() if name != "neighbour"}
    for frame in honest.values():
        tap.send(frame)
    tap.send(ethernet(mac, udp(str(own), _LAST)))
    seen = await witness.until(_LAST)
    assert not any(b"spoofed" in frame for frame in seen)
    assert [
        name for name, frame in honest.items() if frame.rstrip(b"\0") not in {one.rstrip(b"\0") for one in seen}
    ] == []
    counts = await lab.plane.counters()
    assert counts[plan.interface].dropped_packets == len(spoofed)
    assert counts[plan.interface].sent_packets >= len(spoofed) + len(honest) + 1
    assert counts[witness.port.interface].received_packets >= len(honest) + 1


async def test_ports_of_one_name_and_mac_are_refused(lab: Lab) -> None:
    network = nat()
    await lab.plane.ensure_network(network)
    first = await lab.plug(port("one", network))
    with pytest.raises(Refused, match=r"the port cmp[0-9a-f]+ is in use already"):
        await lab.plane.attach(first.port)
    with pytest.raises(Refused, match="is another port's of the network inner") as refused:
        await lab.plane.attach(replace(port("two", network), mac=first.port.mac))
    assert refused.value.code == "MacInUse"
    with pytest.raises(Refused, match=r"the address 10\.77\.0\.[0-9]+ is another port's"):
        await lab.plane.attach(replace(port("two", network), addresses=first.port.addresses))
    assert len([name for name in await lab.interfaces() if name.startswith("cmp")]) == 1
