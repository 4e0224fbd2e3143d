"""Which back end is chosen, by a passt that works, one that does not, and none."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from carmel.network import backends
from carmel.network.backends import Backend, Backends
from carmel.run import Command, Result


class Passt:
    """Behaves as passt does when it starts: listens and stays, or ends with a word."""

    def __init__(self, *, works: bool) -> None:
        self.works = works
        self.starts = 0
        self.running = 0

    async def _answer(self, descriptor: int) -> None:
        connection = socket.socket(fileno=os.dup(descriptor))
        connection.setblocking(False)
        with connection:
            loop = asyncio.get_running_loop()
            frame = await loop.sock_recv(connection, 2048)
            assert len(frame) == 4 + int.from_bytes(frame[:4], "big")
            await loop.sock_sendall(connection, frame)

    async def run(
        self, command: Command, *, check: bool = True, on_line: Callable[[str], None] | None = None
    ) -> Result:
        self.starts += 1
        if not self.works:
            return Result(1, b"", b"No routable interface for IPv4")
        self.running += 1
        try:
            await self._answer(int(str(command.argv[-1])))
            await asyncio.Event().wait()
        finally:
            self.running -= 1
        raise AssertionError("unreachable")


@pytest.mark.parametrize(("works", "expected"), [(True, Backend.PASST), (False, Backend.SLIRP)])
async def test_it_is_tried_once(monkeypatch: pytest.MonkeyPatch, works: bool, expected: Backend) -> None:
    monkeypatch.setattr(backends, "find_program", lambda _name: Path("/usr/bin/passt"))
    passt = Passt(works=works)
    found = Backends(passt)
    assert list(await asyncio.gather(found.best(), found.best())) == [expected, expected]
    assert passt.starts == 1
    assert passt.running == 0


async def test_none_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_program", lambda _name: None)
    passt = Passt(works=True)
    assert await Backends(passt).best() is Backend.SLIRP
    assert passt.starts == 0
