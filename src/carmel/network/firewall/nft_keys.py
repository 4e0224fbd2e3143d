"""How keys of sets and maps lie in memory: each part begins at a multiple of four bytes."""

from __future__ import annotations

import functools
import struct
import sys
from collections.abc import Callable
from typing import Literal, NamedTuple

MACHINE: Literal["little", "big"] = "little" if sys.byteorder == "little" else "big"
_NAME_BYTES = 16
_TYPES = {
    "ipv4_addr": (7, 4, "I"),
    "ipv6_addr": (8, 16, "QQ"),
    "inet_proto": (12, 1, "B3x"),
    "inet_service": (13, 2, "H2x"),
    "icmpv6_type": (29, 1, "B3x"),
    "ifname": (41, _NAME_BYTES, f"{_NAME_BYTES}s"),
}
"""By nft's names: nft's numbers (its datatype.h), sizes in bytes, and struct's letters for them."""
_TYPE_BITS = 6
_LOW_64 = (1 << 64) - 1


def interface_key(name: str) -> bytes:
    return name.encode().ljust(_NAME_BYTES, b"\0")


class KeyLayout(NamedTuple):
    """``type`` and ``order`` are for nft, which lists by them; ``size`` is what the kernel is told."""

    types: tuple[str, ...]
    type: int
    size: int
    order: int
    pack: Callable[..., bytes]
    unpack: Callable[[bytes], tuple[int, ...]]


@functools.cache
def layout(types: tuple[str, ...]) -> KeyLayout:
    """A key of one part has its own size, one of several has all of them padded."""
    known = [_TYPES[one] for one in types]
    number = functools.reduce(lambda sum_, one: sum_ << _TYPE_BITS | one[0], known, 0)
    letters = "".join(one[2] for one in known)
    if len(types) == 1:
        order = {"ifname": 1, "inet_proto": 0}.get(types[0], 2)
        code = struct.Struct("!" + letters.removesuffix("3x").removesuffix("2x"))
    else:
        order, code = 0, struct.Struct("!" + letters)
    return KeyLayout(types, number, code.size, order, *_codec(types[0], code))


def types_of(number: int) -> tuple[str, ...]:
    """What ``layout`` made ``number`` of. Raises ``KeyError`` for others."""
    names = {one[0]: name for name, one in _TYPES.items()}
    found: list[str] = []
    while number:
        found.insert(0, names[number & ((1 << _TYPE_BITS) - 1)])
        number >>= _TYPE_BITS
    return tuple(found)


def _codec(first: str, code: struct.Struct) -> tuple[Callable[..., bytes], Callable[[bytes], tuple[int, ...]]]:
    if first == "ifname":
        return (lambda name: code.pack(name.encode())), code.unpack
    if first != "ipv6_addr":
        return code.pack, code.unpack

    def pack(address: int, *rest: int) -> bytes:
        return code.pack(address >> 64, address & _LOW_64, *rest)

    def unpack(value: bytes) -> tuple[int, ...]:
        high, low, *rest = code.unpack(value)
        return (high << 64 | low, *rest)

    return pack, unpack
