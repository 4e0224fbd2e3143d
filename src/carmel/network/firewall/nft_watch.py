"""Notices at once when somebody else changes a table of ours: ``nft flush ruleset`` opens all ports.

The kernel tells those who ask about each change of nftables, and which socket it came from (NFNLGRP_NFTABLES).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

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


class NftWatch:
    def __init__(self, listener: socket.socket, own: int, table: Table, told: Told) -> None:
        self._listener = listener
        self._own = own
        self._table = table
        self._told = told
        self._touched = False
        self._ours: int | None = None
        """While a program of ours changes something: how many transactions there were."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(listener.fileno(), self._readable)

    @classmethod
    async def begin(cls, channel: NftSocket, table: Table, told: Told) -> NftWatch:
        """``channel`` is the socket whose own changes are not told."""
        return cls(await channel.listener(_GROUP), await channel.number(), table, told)

    @contextlib.contextmanager
    def looking_away(self) -> Iterator[None]:
        """Of a change that is told in tens of thousands of messages, which would double the time that it takes."""
        leave(self._listener, _GROUP)
        try:
            yield
        finally:
            join(self._listener, _GROUP)

    @contextlib.contextmanager
    def our_program(self) -> Iterator[None]:
        """Within it a program of ours makes one transaction in the table, which is not told. The kernel has told of it
        when that program has ended, and whoever came in between makes it two."""
        self._readable()
        self._ours, expected = 0, 0
        try:
            yield
            expected = 1
        finally:
            self._readable()
            count, self._ours = self._ours, None
            if count > expected:
                self._told("another program")

    def close(self) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()

    def _readable(self) -> None:
        try:
            data = received(self._listener)
        except OSError:
            # More than there was room for. What was touched is not known.
            self._touched = False
            self._told(None)
            return
        for reply in replies(data):
            if reply.kind == SUBSYSTEM | _NEWGEN:
                if self._touched:
                    self._touched = False
                    self._note(_who(reply))
            elif reply.sender != self._own and self._is_about_the_table(reply):
                self._touched = True

    def _note(self, who: str) -> None:
        if self._ours is None:
            self._told(who)
        else:
            self._ours += 1

    def _is_about_the_table(self, reply: Reply) -> bool:
        """In every kind of message the first kind of attribute is the table's name."""
        name = attributes(reply.body[4:]).get(1)
        return name is not None and (reply.body[0], words(name)) == self._table


def _who(reply: Reply) -> str:
    """NFTA_GEN_PROC_PID and NFTA_GEN_PROC_NAME."""
    parts = attributes(reply.body[4:])
    if 2 not in parts or 3 not in parts:
        return "another program"
    return f"{words(parts[3])} (process {int.from_bytes(parts[2])})"
