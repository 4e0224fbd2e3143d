"""What realises the network of provider ``user`` here: passt where it works, else QEMU's own (slirp).

passt passes connections on socket to socket, in a process without any rights, and is several times faster. It may be
missing, or fail (no route, namespaces forbidden in a container): so it is tried once, not guessed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from carmel.errors import CarmelError
from carmel.run import Command, Limits, Runner, find_program

PROGRAM = "passt"
_TRY_SECONDS = 3.0
_POLL_SECONDS = 0.01


class Backend(StrEnum):
    PASST = "passt"
    SLIRP = "slirp"


class Backends:
    """``user`` and ``group``: whom passt runs as where the daemon is root. ``forced`` wins over what is found."""

    def __init__(
        self, runner: Runner, *, user: int | None = None, group: int | None = None, forced: Backend | None = None
    ) -> None:
        self._runner = runner
        self._user = user
        self._group = group
        self._best = forced
        self._lock = asyncio.Lock()

    async def best(self) -> Backend:
        async with self._lock:
            if self._best is None:
                self._best = Backend.PASST if await self._passt_works() else Backend.SLIRP
            return self._best

    async def _passt_works(self) -> bool:
        program = find_program(PROGRAM)
        if program is None:
            return False
        with _directory(self._user, self._group) as directory:
            socket = directory / "s"
            command = Command(
                [program, "--foreground", "--quiet", "--ipv4-only", "--socket", socket],
                user=self._user,
                group=self._group,
                limits=Limits(seconds=_TRY_SECONDS),
            )
            run = asyncio.create_task(self._runner.run(command, check=False))
            try:
                # It listens as soon as it works, and then stays.
                while not run.done() and not socket.exists():  # noqa: ASYNC110 - a file appears without an event
                    await asyncio.sleep(_POLL_SECONDS)
                return not run.done()
            finally:
                run.cancel()
                with contextlib.suppress(asyncio.CancelledError, CarmelError):
                    await run


@contextlib.contextmanager
def _directory(user: int | None, group: int | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="carmel-passt-") as name:
        if user is not None:
            os.chown(name, user, -1 if group is None else group)
        yield Path(name)
