"""Notices at once when somebody else changes a table of ours: ``nft flush ruleset`` opens all ports.

The kernel tells those who ask about each change of nftables, and which socket it came from (NFNLGRP_NFTABLES).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from carmel.network.firewall.nft_attributes import SUBSYSTEM, Reply, attributes, replies, words
from carmel.network.firewall.nft_socket import NftSocket, join, leave, received

_GROUP = 7
"""NFNLGRP_NFTABLES."""
_NEWGEN = 15
"""Ends what is told of one transaction, and says which program it was."""

Told = Callable[[str | None], None]
"""Called with who it was; ``None``: something was missed, and the table may have been changed."""

Table = tuple[int, str]
"""Its family (NFPROTO_…) and its name."""


@dataclass(slots=True)
class _Followed:
    """``own``: the socket whose changes are not told. ``touched``: by the transaction that is being told. ``ours``:
    while a program of ours changes the table, how many transactions there were."""

    told: Told
    own: int
    touched: bool = False
    ours: int | None = None

    def note(self, who: str) -> None:
        self.touched = False
        if self.ours is None:
            self.told(who)
        else:
            self.ours += 1


class NftWatch:
    """One for all tables that this process has in a network namespace, whoever has them: while nobody listens the
    kernel makes no messages at all, and of a large change these take as long as the change.

    ``namespace`` is its file; this process' own if it is absent."""

    def __init__(self, namespace: Path | None = None) -> None:
        self._socket = NftSocket(namespace)
        self._listener: socket.socket | None = None
        self._beginning = asyncio.Lock()
        self._followed: dict[Table, _Followed] = {}

    async def follow(self, table: Table, told: Told, own: int = 0) -> None:
        """From now on call ``told`` when the table was changed, but not by the socket with the number ``own``. Raises
        ``Refused`` where this process may not, or the kernel has no nftables."""
        async with self._beginning:
            if self._listener is None:
                self._listener = await self._socket.listener(_GROUP)
                self._loop = asyncio.get_running_loop()
                self._loop.add_reader(self._listener.fileno(), self._readable)
        self._followed.setdefault(table, _Followed(told, own))

    def forget(self, table: Table) -> None:
        self._followed.pop(table, None)

    @contextlib.contextmanager
    def looking_away(self) -> Iterator[None]:
        """Of a change that is told in tens of thousands of messages, which would double the time that it takes."""
        if self._listener is None:
            yield
            return
        leave(self._listener, _GROUP)
        try:
            yield
        finally:
            join(self._listener, _GROUP)

    @contextlib.contextmanager
    def our_program(self, table: Table) -> Iterator[None]:
        """Within it a program of ours makes one transaction in the table, which is not told. The kernel has told of it
        when that program has ended, and whoever came in between makes it two."""
        followed = self._followed[table]
        self._readable()
        followed.ours, expected = 0, 0
        try:
            yield
            expected = 1
        finally:
            self._readable()
            count, followed.ours = followed.ours, None
            if count > expected:
                followed.told("another program")

    def missed(self) -> None:
        """Whatever may have been changed meanwhile was not told."""
        for followed in list(self._followed.values()):
            followed.touched = False
            followed.told(None)

    def close(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
        self._socket.close()

    def _readable(self) -> None:
        if self._listener is None:
            return
        try:
            data = received(self._listener)
        except OSError:
            # More than there was room for.
            self.missed()
            return
        for reply in replies(data):
            if reply.kind == SUBSYSTEM | _NEWGEN:
                for followed in [one for one in self._followed.values() if one.touched]:
                    followed.note(_who(reply))
                continue
            about = self._about(reply)
            if about is not None and reply.sender != about.own:
                about.touched = True

    def _about(self, reply: Reply) -> _Followed | None:
        """In every kind of message the first kind of attribute is the table's name."""
        name = attributes(reply.body[4:]).get(1)
        return None if name is None else self._followed.get((reply.body[0], words(name)))


def _who(reply: Reply) -> str:
    """NFTA_GEN_PROC_PID and NFTA_GEN_PROC_NAME."""
    parts = attributes(reply.body[4:])
    if 2 not in parts or 3 not in parts:
        return "another program"
    return f"{words(parts[3])} (process {int.from_bytes(parts[2])})"
