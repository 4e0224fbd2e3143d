"""Commands as nftables' netlink messages. Numbers and names are those of linux/netfilter/nf_tables.h.

That the kernel, and nft(8) when it lists the table, read them as they are meant is tested by having nft load what it
has listed, and comparing what the kernel then has (tests/system/network/firewall/test_encoding.py).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import count

from carmel.network.firewall import nft_keys
from carmel.network.firewall.model import Count
from carmel.network.firewall.nft_attributes import APPEND, CREATE, Message, attribute, nested, number, text
from carmel.network.firewall.nft_expressions import ACCEPT, counter, named, rule_attributes, verdict_data
from carmel.network.firewall.nft_rules import Verdict
from carmel.network.firewall.nft_state import (
    AddChain,
    AddMap,
    AddRule,
    AddSet,
    AddTable,
    Command,
    DeleteChain,
    DeleteSet,
    DeleteTable,
    FlushChain,
    Interval,
    MapElements,
    SetElements,
)

(
    _NEWTABLE, GETTABLE, _DELTABLE, _NEWCHAIN, GETCHAIN, _DELCHAIN, _NEWRULE, GETRULE, _DELRULE, _NEWSET, GETSET,
    _DELSET, _NEWELEMENT, GETELEMENT, _DELELEMENT, _NEWGENERATION, GETGENERATION,
) = range(17)  # fmt: skip
"""NFT_MSG_...: kinds of messages."""
_IS_INTERVAL, _IS_MAP = 4, 8
_ENDS_INTERVAL = 1
_VERDICT_TYPE = 0xFFFFFF00
_KEY_AT = 12
"""Of an element: behind the heads of itself, of its key and of the key's value."""
_MOST_BYTES = 60_000
"""Of elements in one message: the length of their attribute has 16 bits."""


def encode(commands: Iterable[Command], table: str) -> tuple[list[Message], list[Command]]:
    """The messages, and beside each the command that it is of."""
    messages: list[Message] = []
    owners: list[Command] = []
    ids = count(1)
    for command in commands:
        for message in _messages(command, text(1, table), ids):
            messages.append(message)
            owners.append(command)
    return messages, owners


def _messages(command: Command, table: bytes, ids: Iterator[int]) -> Iterator[Message]:  # noqa: C901 - a case a command
    match command:
        case AddTable():
            yield Message(_NEWTABLE, table + number(2, 0), CREATE)
        case DeleteTable():
            yield Message(_DELTABLE, table)
        case AddChain(name, hook):
            body = table + text(3, name)
            if hook is not None:
                at = nested(4, number(1, hook.number), attribute(2, hook.priority.to_bytes(4, signed=True)))
                body += text(7, "filter") + number(5, ACCEPT) + at
            yield Message(_NEWCHAIN, body, CREATE)
        case FlushChain(name):
            yield Message(_DELRULE, table + text(2, name))
        case DeleteChain(name):
            yield Message(_DELCHAIN, table + text(3, name))
        case AddSet(name, type_, interval):
            key = nft_keys.layout((type_,))
            body = table + text(2, name) + number(3, _IS_INTERVAL if interval else 0)
            body += number(4, key.type) + number(5, key.size) + number(10, next(ids))
            yield Message(_NEWSET, body + attribute(13, _userdata(0, key.order)), CREATE)
        case AddMap(name, types, counted):
            key = nft_keys.layout(types)
            body = table + text(2, name) + number(3, _IS_MAP) + number(4, key.type) + number(5, key.size)
            body += number(6, _VERDICT_TYPE) + number(7, 0) + number(10, next(ids))
            body += attribute(13, _userdata(0, key.order) + _userdata(1, 0))
            yield Message(_NEWSET, body + (named(17, "counter") if counted else b""), CREATE)
        case DeleteSet(name):
            yield Message(_DELSET, table + text(2, name))
        case SetElements(name, elements, delete):
            yield from _elements(table + text(2, name), _set_elements(elements), delete=delete)
        case MapElements(name, delete=delete):
            yield from _elements(table + text(2, name), _map_elements(command), delete=delete)
        case AddRule(chain, rule, counted):
            yield Message(_NEWRULE, table + text(2, chain) + rule_attributes(rule, counted), CREATE | APPEND)


def _userdata(kind: int, value: int) -> bytes:
    """For nft, which lists by it (libnftnl): of a set the byte order of its keys (0) and data (1), of an element (1)
    its flags."""
    return bytes((kind, 4)) + value.to_bytes(4, nft_keys.MACHINE)


# -- elements ---------------------------------------------------------------------------------------------------------
def _elements(head: bytes, elements: Iterable[bytes], *, delete: bool) -> Iterator[Message]:
    kind, flags = (_DELELEMENT, 0) if delete else (_NEWELEMENT, CREATE)
    some: list[bytes] = []
    size = 0
    for one in elements:
        if size + len(one) > _MOST_BYTES:
            yield Message(kind, head + nested(3, *some), flags)
            some, size = [], 0
        some.append(one)
        size += len(one)
    if some:
        yield Message(kind, head + nested(3, *some), flags)


def _key(value: bytes) -> bytes:
    return nested(1, attribute(1, value))


def _set_elements(elements: Collection[bytes | Interval]) -> Iterator[bytes]:
    intervals = sorted(one for one in elements if isinstance(one, Interval))
    yield from (nested(1, _key(one)) for one in elements if isinstance(one, bytes))
    if intervals and any(intervals[0].first):
        # As nft does: what is before the first interval ends at the first address.
        yield nested(1, _key(bytes(len(intervals[0].first))), number(3, _ENDS_INTERVAL))
    for one in intervals:
        if one.after is None:
            # For nft: NFTNL_SET_ELEM_F_INTERVAL_OPEN.
            yield nested(1, _key(one.first), attribute(6, _userdata(1, 1)))
            continue
        yield nested(1, _key(one.first))
        yield nested(1, _key(one.after), number(3, _ENDS_INTERVAL))


def _map_elements(command: MapElements) -> Iterator[bytes]:
    """Tens of thousands at once: what is the same in all of one verdict is made once."""
    pack, counts = nft_keys.layout(command.types).pack, command.counts
    around: dict[str, tuple[bytes, bytes]] = {}
    for key, verdict in command.entries.items():
        packed = pack(*key)
        found = around.get(verdict)
        if found is None:
            whole = _map_element(packed, verdict)
            found = around[verdict] = whole[:_KEY_AT], whole[_KEY_AT + len(packed) :]
        if counts and key in counts:
            yield _map_element(packed, verdict, counts[key])
        else:
            yield found[0] + packed + found[1]


def _map_element(packed: bytes, verdict: str, counted: Count | None = None) -> bytes:
    begins = b"" if counted is None else counter(7, counted)
    return nested(1, _key(packed), nested(2, verdict_data(Verdict(verdict))), begins)
