"""A table of nftables' that is changed and read over netlink."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from carmel.errors import Unavailable
from carmel.network.firewall import nft_keys
from carmel.network.firewall.bursts import burst
from carmel.network.firewall.nft_attributes import (
    BRIDGE,
    DONE,
    DUMP,
    ERROR,
    INTERRUPTED,
    Message,
    Reply,
    attributes,
    batch,
    replies,
    request,
    text,
    words,
)
from carmel.network.firewall.nft_counters import counted_elements, counted_rule
from carmel.network.firewall.nft_encode import GETELEMENT, GETGENERATION, GETRULE, GETSET, GETTABLE, encode
from carmel.network.firewall.nft_rules import Counted
from carmel.network.firewall.nft_socket import NftSocket, refusal
from carmel.network.firewall.nft_state import AddRule, Command
from carmel.network.firewall.nft_watch import NftWatch, Told

TABLE = "carmel-firewall"
_FAMILY_BYTES = 4
_MESSAGE_TEXT = 1
"""NLMSGERR_ATTR_MSG."""
_ACK_BYTES = 4 + 16
"""Of an error: its number, and the head of the message that it is about."""
_MUCH_BYTES = 1 << 16
"""About a thousand elements."""
_TRIES = 10


class Tables(Protocol):
    """The table ``carmel-firewall`` of the bridge family."""

    async def apply(self, commands: Sequence[Command]) -> None:
        """One transaction: the kernel takes all of it or nothing, and packets see the rules before it or those after
        it. Raises ``Refused`` (what this machine lacks), ``Unavailable``."""
        ...

    async def counters(self) -> list[Counted] | None:
        """What counted anything; ``None``: there is no such table."""
        ...

    async def watch(self, told: Told) -> None:
        """From now on call ``told`` when somebody else has changed the table."""
        ...

    def close(self) -> None:
        """Let go of what was opened to it. It stays in force."""
        ...


class NftTables:
    """``namespace`` is a network namespace's file (``/run/netns/x``, ``/proc/1/ns/net``); ours if it is absent.
    ``watch``: that of the namespace, where others of this process have one."""

    def __init__(self, namespace: Path | None = None, watch: NftWatch | None = None) -> None:
        self._socket = NftSocket(namespace)
        self._watch = watch if watch is not None else NftWatch(namespace)
        self._has_watch_of_its_own = watch is None
        self._watched = False

    async def apply(self, commands: Sequence[Command]) -> None:
        sent, owners = await asyncio.to_thread(_encoded, commands)
        if len(sent) < _MUCH_BYTES:
            _check(await self._exchange(sent), owners)
            return
        before = await self._generation()
        with self._watch.looking_away():
            answer = await self._exchange(sent)
        _check(answer, owners)
        if await self._generation() != before + 1:
            self._watch.missed()

    async def counters(self) -> list[Counted] | None:
        if not await self._is_there():
            return None
        table = text(1, TABLE)
        found: list[Counted] = []
        for reply in await self._list(Message(GETSET, table)):
            parts = attributes(reply.body[_FAMILY_BYTES:])
            # Only maps whose entries count: NFTA_SET_EXPR.
            if 17 in parts:
                name = words(parts[2])
                layout = nft_keys.layout(nft_keys.types_of(int.from_bytes(parts[4])))
                elements = await self._list(Message(GETELEMENT, table + text(2, name)))
                found += await asyncio.to_thread(_elements, elements, name, layout)
        rules = await self._list(Message(GETRULE, table))
        found += (one for one in (counted_rule(rule.body[_FAMILY_BYTES:]) for rule in rules) if one is not None)
        return found

    async def watch(self, told: Told) -> None:
        if not self._watched:
            await self._watch.follow((BRIDGE, TABLE), told, await self._socket.number())
            self._watched = True

    def close(self) -> None:
        self._watch.forget((BRIDGE, TABLE))
        if self._has_watch_of_its_own:
            self._watch.close()
        self._socket.close()

    async def _exchange(self, sent: bytes) -> bytes:
        """A test has another machine's kernel answer."""
        return await self._socket.exchange(sent)

    async def _generation(self) -> int:
        """One more with each transaction, whoever made it."""
        for reply in replies(await self._exchange(request(Message(GETGENERATION, b"")))):
            if reply.kind != ERROR:
                return int.from_bytes(attributes(reply.body[_FAMILY_BYTES:])[1])
        raise Unavailable("the kernel does not say which generation of rules it has", code="FirewallNotLoaded")

    async def _is_there(self) -> bool:
        for reply in replies(await self._exchange(request(Message(GETTABLE, text(1, TABLE))))):
            if reply.kind == ERROR and (number := _number(reply)):
                if number == errno.ENOENT:
                    return False
                raise refusal(number, "to say what the firewall has counted")
        return True

    async def _list(self, message: Message) -> list[Reply]:
        for _ in range(_TRIES):
            found = list(replies(await self._exchange(request(message._replace(flags=DUMP)))))
            if any(one.flags & INTERRUPTED for one in found):
                continue
            for one in found:
                if one.kind == ERROR and (number := _number(one)):
                    raise refusal(number, "to say what the firewall has counted")
            return [one for one in found if one.kind not in (ERROR, DONE)]
        raise Unavailable("nftables changed all the time while it was read", code="FirewallBusy")


def _check(answer: bytes, owners: Sequence[Command]) -> None:
    """Raises what the kernel refused. The message that is the last of all is acknowledged."""
    acknowledged = False
    for reply in replies(answer):
        if reply.kind != ERROR:
            continue
        if number := _number(reply):
            at = min(max(reply.sequence, 1), len(owners)) - 1
            raise refusal(number, f"the firewall's rules ({_in_words(owners[at])})", _said(reply))
        acknowledged = acknowledged or reply.sequence == len(owners)
    if not acknowledged:
        raise Unavailable("the kernel did not say that it took the firewall's rules", code="FirewallNotLoaded")


@burst()
def _encoded(commands: Sequence[Command]) -> tuple[bytes, Sequence[Command]]:
    messages, owners = encode(commands, TABLE)
    return batch(messages), owners


def _elements(found: Sequence[Reply], name: str, layout: nft_keys.KeyLayout) -> list[Counted]:
    return [one for reply in found for one in counted_elements(reply.body[_FAMILY_BYTES:], name, layout)]


def _number(reply: Reply) -> int:
    return -int.from_bytes(reply.body[:4], nft_keys.MACHINE, signed=True)


def _said(reply: Reply) -> str:
    said = attributes(reply.body[_ACK_BYTES:]).get(_MESSAGE_TEXT)
    return "" if said is None else words(said)


def _in_words(command: Command) -> str:
    name = command.chain if isinstance(command, AddRule) else getattr(command, "name", TABLE)
    return f"{type(command).__name__} {name}"
