"""A table as the kernel has it, whoever loaded it: for comparing."""

from __future__ import annotations

from pathlib import Path

from carmel.network.firewall.nft_attributes import (
    DUMP,
    Message,
    Reply,
    attributes,
    listed,
    replies,
    request,
    text,
    words,
)
from carmel.network.firewall.nft_encode import GETCHAIN, GETELEMENT, GETRULE, GETSET
from carmel.network.firewall.nft_socket import NftSocket
from carmel.network.firewall.nft_tables import TABLE

_HEAD = 4
_ELEMENTS, _EXPRESSIONS, _USERDATA = 3, 4, 7
_SET_NAME, _SET_KIND, _CHAIN = 2, (3, 4, 5, 6, 17), 3

# Two ways to ask for a frame's protocol: nft takes the one or the other.
_ETHER_TYPE = bytes.fromhex(
    "340001000c0001007061796c6f6164002400020008000100000000010800020000000000080003000000000c0800040000000002"
)
_PROTOCOL = bytes.fromhex("24000100090001006d657461000000001400020008000200000000010800010000000001")
Family = int
State = dict[str, object]


async def dumped(namespace: Path, family: Family) -> State:
    """Chains, rules, sets, maps and their elements, without what is of one loading only (handles)."""
    channel = NftSocket(namespace)
    try:
        found: State = {}
        for reply in await _list(channel, Message(GETCHAIN, text(1, TABLE)), family):
            parts = attributes(reply.body[_HEAD:])
            if words(parts[1]) == TABLE:
                found[f"chain {words(parts[_CHAIN])}"] = {kind: bytes(parts[kind]) for kind in (4, 5) if kind in parts}
        for reply in await _list(channel, Message(GETRULE, text(1, TABLE)), family):
            parts = attributes(reply.body[_HEAD:])
            rules = found.setdefault(f"rules of {words(parts[2])}", [])
            assert isinstance(rules, list)
            expressions = bytes(parts[_EXPRESSIONS]).replace(_ETHER_TYPE, _PROTOCOL)
            rules.append((expressions, bytes(parts.get(_USERDATA, b""))))
        for reply in await _list(channel, Message(GETSET, text(1, TABLE)), family):
            parts = attributes(reply.body[_HEAD:])
            name = words(parts[_SET_NAME])
            found[f"set {name}"] = {kind: bytes(parts[kind]) for kind in _SET_KIND if kind in parts}
            elements = await _list(channel, Message(GETELEMENT, text(1, TABLE) + text(2, name)), family)
            found[f"elements of {name}"] = {
                bytes(element)
                for reply in elements
                for _, element in listed(attributes(reply.body[_HEAD:]).get(_ELEMENTS, memoryview(b"")))
            }
        return found
    finally:
        channel.close()


async def _list(channel: NftSocket, message: Message, family: Family) -> list[Reply]:
    asked = of_family(request(message._replace(flags=DUMP)), family)
    return [one for one in replies(await channel.exchange(asked)) if one.kind > 0xFF]


def of_family(sent: bytes, family: Family) -> bytes:
    """The same requests about tables of another family."""
    changed, at = bytearray(sent), 0
    while at < len(changed):
        length, kind = (
            int.from_bytes(changed[at : at + 4], "little"),
            int.from_bytes(changed[at + 4 : at + 6], "little"),
        )
        if kind > 0xFF:
            changed[at + 16] = family
        at += (length + 3) & ~3
    return bytes(changed)
