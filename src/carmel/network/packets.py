"""The few packets a guest must know to be connected to.

ARP (RFC 826), and TCP (RFC 9293) without data in IPv4 (RFC 791). Frames are Ethernet without their own checksum.
TCP options that come are passed over, none are sent.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address

_ETHERNET = struct.Struct("!6s6sH")
_ARP = struct.Struct("!HHBBH6s4s6s4s")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_TCP = struct.Struct("!HHIIBBHHH")
_TYPE_IPV4, _TYPE_ARP = 0x0800, 0x0806
_ARP_ETHERNET_IPV4 = (1, _TYPE_IPV4, 6, 4)
_PROTOCOL_TCP = 6
_DONT_FRAGMENT = 0x4000
_TTL = 64
_WINDOW = 0xFFFF
_LEAST_FRAME = 60
BROADCAST = b"\xff" * 6


class ArpOperation(IntEnum):
    REQUEST = 1
    REPLY = 2


class Flags(IntFlag):
    """TCP's control bits."""

    FIN = 1
    SYN = 2
    RST = 4
    PSH = 8
    ACK = 16


@dataclass(frozen=True, slots=True)
class Arp:
    """Who asks or answers (``sender``), and about or to whom (``target``)."""

    operation: ArpOperation
    sender_mac: bytes
    sender: IPv4Address
    target_mac: bytes
    target: IPv4Address

    def frame(self) -> bytes:
        to = BROADCAST if self.operation is ArpOperation.REQUEST else self.target_mac
        body = _ARP.pack(
            *_ARP_ETHERNET_IPV4,
            self.operation,
            self.sender_mac,
            self.sender.packed,
            self.target_mac,
            self.target.packed,
        )
        return (_ETHERNET.pack(to, self.sender_mac, _TYPE_ARP) + body).ljust(_LEAST_FRAME, b"\0")


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment without data, and its way."""

    source_mac: bytes
    target_mac: bytes
    source: IPv4Address
    target: IPv4Address
    source_port: int
    target_port: int
    sequence: int
    acknowledgement: int
    flags: Flags

    def frame(self) -> bytes:
        tcp = _TCP.pack(
            self.source_port, self.target_port, self.sequence, self.acknowledgement,
            _TCP.size // 4 << 4, self.flags, _WINDOW, 0, 0,
        )  # fmt: skip
        addresses = self.source.packed + self.target.packed
        tcp = _with_checksum(tcp, 16, addresses + struct.pack("!HH", _PROTOCOL_TCP, len(tcp)))
        ip = _IPV4.pack(
            4 << 4 | _IPV4.size // 4, 0, _IPV4.size + len(tcp), 0, _DONT_FRAGMENT, _TTL, _PROTOCOL_TCP, 0,
            self.source.packed, self.target.packed,
        )  # fmt: skip
        return _ETHERNET.pack(self.target_mac, self.source_mac, _TYPE_IPV4) + _with_checksum(ip, 10) + tcp


def parse(frame: bytes) -> Arp | Segment | None:
    """``None`` for everything that is neither, and for what is cut short."""
    if len(frame) < _ETHERNET.size:
        return None
    target_mac, source_mac, kind = _ETHERNET.unpack_from(frame)
    body = frame[_ETHERNET.size :]
    if kind == _TYPE_ARP:
        return _parse_arp(body)
    if kind == _TYPE_IPV4:
        return _parse_segment(source_mac, target_mac, body)
    return None


def _parse_arp(body: bytes) -> Arp | None:
    if len(body) < _ARP.size:
        return None
    *form, operation, sender_mac, sender, target_mac, target = _ARP.unpack_from(body)
    if tuple(form) != _ARP_ETHERNET_IPV4 or operation not in tuple(ArpOperation):
        return None
    return Arp(ArpOperation(operation), sender_mac, IPv4Address(sender), target_mac, IPv4Address(target))


def _parse_segment(source_mac: bytes, target_mac: bytes, packet: bytes) -> Segment | None:
    if len(packet) < _IPV4.size or packet[0] >> 4 != 4:
        return None
    _, _, _, _, _, _, protocol, _, source, target = _IPV4.unpack_from(packet)
    tcp = packet[(packet[0] & 15) * 4 :]
    if protocol != _PROTOCOL_TCP or len(tcp) < _TCP.size:
        return None
    source_port, target_port, sequence, acknowledgement, _, flags, *_ = _TCP.unpack_from(tcp)
    ways = (source_mac, target_mac, IPv4Address(source), IPv4Address(target))
    return Segment(*ways, source_port, target_port, sequence, acknowledgement, Flags(flags))


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071): of data that has its right checksum within, 0."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _with_checksum(header: bytes, offset: int, pseudo_header: bytes = b"") -> bytes:
    """``header`` with the checksum over it and ``pseudo_header`` at ``offset``, where it is 0 yet."""
    return header[:offset] + struct.pack("!H", checksum(pseudo_header + header)) + header[offset + 2 :]
