"""Packets: bytes that others made are read and their checksums hold; ours are what the standards say."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from carmel.network.packets import Arp, ArpOperation, Flags, Segment, checksum, parse

GUEST_MAC, HOST_MAC = bytes.fromhex("525400000001"), bytes.fromhex("02fc00000001")
GUEST, HOST = IPv4Address("10.0.2.15"), IPv4Address("10.0.2.2")

# Recorded from passt.
SYN = bytes.fromhex(
    "52540000000102fc00000001080045000030"
    "00000000ff06a3b70a0002020a00020fd2d60016ccc3e7b4000000007002fffffa5400000204f00001030308"
)
ARP_REPLY = bytes.fromhex("52540000000102fc000000010806000108000604000202fc000000010a0002025254000000010a00020f")


def tcp_sum(frame: bytes) -> int:
    """Of TCP in IPv4 without options, its own checksum within."""
    tcp = frame[34:]
    return checksum(frame[26:34] + b"\x00\x06" + len(tcp).to_bytes(2, "big") + tcp)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("0001f203f4f5f6f7", 0x220D),  # the example of RFC 1071, section 3
        ("45000073000040004011" + "0000" + "c0a80001c0a800c7", 0xB861),
        ("", 0xFFFF),
        ("ff", 0x00FF),
        ("ffffffff", 0),
    ],
)
def test_checksum(data: str, expected: int) -> None:
    assert checksum(bytes.fromhex(data)) == expected


def test_what_passt_sends_is_read() -> None:
    assert parse(SYN) == Segment(HOST_MAC, GUEST_MAC, HOST, GUEST, 53974, 22, 3435390900, 0, Flags.SYN)
    assert parse(ARP_REPLY) == Arp(ArpOperation.REPLY, HOST_MAC, HOST, GUEST_MAC, GUEST)
    assert checksum(SYN[14:34]) == 0
    assert tcp_sum(SYN) == 0


def test_a_segment_is_made() -> None:
    answer = Segment(GUEST_MAC, HOST_MAC, GUEST, HOST, 22, 53974, 1000, 3435390901, Flags.SYN | Flags.ACK)
    frame = answer.frame()
    assert frame.hex() == (
        "02fc00000001525400000001" + "0800"
        "4500002800004000400622c00a00020f0a000202"
        "0016d2d6000003e8ccc3e7b55012ffff0c740000"
    )
    assert (checksum(frame[14:34]), tcp_sum(frame)) == (0, 0)
    assert parse(frame) == answer


def test_a_question_for_an_address_is_made() -> None:
    question = Arp(ArpOperation.REQUEST, GUEST_MAC, GUEST, bytes(6), HOST)
    expected = (
        "ffffffffffff525400000001" + "0806" + "0001080006040001" + "5254000000010a00020f" + "0000000000000a000202"
    )
    assert question.frame().hex() == expected + "00" * 18
    assert parse(question.frame()) == question
    answer = Arp(ArpOperation.REPLY, GUEST_MAC, GUEST, HOST_MAC, HOST)
    assert answer.frame()[:6] == HOST_MAC


@pytest.mark.parametrize(("frame", "least"), [(SYN, 14 + 20 + 20), (ARP_REPLY, 14 + 28)])
def test_what_is_cut_short_is_nothing(frame: bytes, least: int) -> None:
    for length in range(len(frame)):
        assert (parse(frame[:length]) is not None) is (length >= least)


@pytest.mark.parametrize(
    ("offset", "byte"),
    [
        (12, 0x86),  # IPv6 or something else
        (14, 0x65),  # an IPv4 frame with a packet of another version
        (14, 0x4F),  # an IP header longer than the packet leaves
        (23, 17),  # UDP
    ],
)
def test_what_is_not_tcp_in_ipv4_is_nothing(offset: int, byte: int) -> None:
    frame = bytearray(SYN)
    frame[offset] = byte
    assert parse(bytes(frame)) is None


@pytest.mark.parametrize(("offset", "byte"), [(15, 6), (18, 8), (21, 3)])
def test_arp_of_other_kinds_is_nothing(offset: int, byte: int) -> None:
    frame = bytearray(ARP_REPLY)
    frame[offset] = byte
    assert parse(bytes(frame)) is None
