"""Netlink messages to nftables, byte by byte: headers and attributes (linux/netlink.h, linux/netfilter/nfnetlink.h).

Lengths and kinds are in this machine's byte order; numbers within nftables' attributes are in the network's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

IPV4, BRIDGE = 2, 7
"""NFPROTO_IPV4 and NFPROTO_BRIDGE."""
SUBSYSTEM = 10 << 8
"""NFNL_SUBSYS_NFTABLES, in the upper byte of a message's kind."""
REQUEST, ACK, CREATE, APPEND, DUMP = 0x1, 0x4, 0x400, 0x800, 0x300
INTERRUPTED = 0x10
"""NLM_F_DUMP_INTR: the list changed while it was being read."""
ERROR, DONE = 2, 3

_BATCH_BEGIN, _BATCH_END = 16, 17
_NESTED = 0x8000
_KIND = 0x3FFF
_HEAD = struct.Struct("=HH")
_MESSAGE = struct.Struct("=IHHII")
_FAMILY = struct.Struct("=BB2s")
_BATCH = _FAMILY.pack(0, 0, (SUBSYSTEM >> 8).to_bytes(2))


class Message(NamedTuple):
    """``kind`` is one of nftables' (NFT_MSG_...); ``body`` are its attributes."""

    kind: int
    body: bytes
    flags: int = 0


class Reply(NamedTuple):
    """``kind`` as the header has it; ``body`` is what follows the header."""

    kind: int
    flags: int
    sequence: int
    sender: int
    body: memoryview


def attribute(kind: int, value: bytes) -> bytes:
    return _HEAD.pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


def nested(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(parts))


def number(kind: int, value: int, size: int = 4) -> bytes:
    return attribute(kind, value.to_bytes(size))


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def request(message: Message, sequence: int = 0) -> bytes:
    length = _MESSAGE.size + _FAMILY.size + len(message.body)
    head = _MESSAGE.pack(length, SUBSYSTEM | message.kind, REQUEST | message.flags, sequence, 0)
    return head + _FAMILY.pack(BRIDGE, 0, b"\0\0") + message.body


def batch(messages: list[Message]) -> bytes:
    """One transaction. The messages have the sequence numbers from 1 on; the last one is acknowledged if all are."""
    *most, last = messages
    ends = [
        _MESSAGE.pack(_MESSAGE.size + _FAMILY.size, kind, REQUEST, sequence, 0) + _BATCH
        for kind, sequence in ((_BATCH_BEGIN, 0), (_BATCH_END, len(messages) + 1))
    ]
    requests = [request(one, sequence) for sequence, one in enumerate(most, 1)]
    return b"".join([ends[0], *requests, request(last._replace(flags=last.flags | ACK), len(messages)), ends[1]])


def replies(data: bytes) -> Iterator[Reply]:
    whole, at = memoryview(data), 0
    while at + _MESSAGE.size <= len(whole):
        length, kind, flags, sequence, sender = _MESSAGE.unpack_from(whole, at)
        yield Reply(kind, flags, sequence, sender, whole[at + _MESSAGE.size : at + length])
        at += (length + 3) & ~3


def attributes(data: memoryview) -> dict[int, memoryview]:
    """By kind; of several of one kind the last."""
    return dict(listed(data))


def listed(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    at, end = 0, len(data)
    while at + 4 <= end:
        length, kind = _HEAD.unpack_from(data, at)
        if length < 4:
            return
        yield kind & _KIND, data[at + 4 : at + length]
        at += (length + 3) & ~3


def words(value: memoryview) -> str:
    return bytes(value).split(b"\0", 1)[0].decode("utf-8", "replace")
