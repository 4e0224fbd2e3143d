"""What a VM sends as somebody else never leaves; what it sends as itself does."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import replace

import pytest

from carmel.errors import Refused
from tests.system.network.host.lab import Lab, arp, ethernet, nat, port, udp

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
