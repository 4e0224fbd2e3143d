"""What realises the network of provider ``user`` here: passt where it works, else QEMU's own (slirp).

passt passes connections on socket to socket, in a process without any rights, and is several times faster. It may be
missing, fail (no route, namespaces forbidden in a container), or have a fault that hurts: so it is tried once in a
daemon's life, not guessed. The answer is not kept on disk: it depends on the host as much as on the program.

What slirp costs: a guest reaches what listens on the host's loopback by the gateway's address (10.0.2.2 by default).
QEMU 7.2 has no option against that alone: ``restrict=on`` takes away all that is outside. passt is told not to do so
(``--no-map-gw``). Tried with both.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from enum import StrEnum

from carmel.network import passt_probe
from carmel.run import Runner, find_program

PROGRAM = "passt"
_log = logging.getLogger(__name__)


class Backend(StrEnum):
    PASST = "passt"
    SLIRP = "slirp"


@dataclass(frozen=True, slots=True)
class Choice:
    """``reason``: why it is not the better one, a sentence without an end; empty if it is, or was asked for."""

    backend: Backend
    reason: str = ""


class Backends:
    """``user`` and ``group``: whom passt runs as where the daemon is root. ``forced`` wins over what is found."""

    def __init__(
        self, runner: Runner, *, user: int | None = None, group: int | None = None, forced: Backend | None = None
    ) -> None:
        self._runner = runner
        self._user = user
        self._group = group
        self._choice = None if forced is None else Choice(forced)
        self._lock = asyncio.Lock()

    async def best(self) -> Backend:
        return (await self.choice()).backend

    async def choice(self) -> Choice:
        async with self._lock:
            if self._choice is None:
                self._choice = await self._choose()
                if self._choice.reason:
                    _log.info("%s", self._choice.reason)
            return self._choice

    async def _choose(self) -> Choice:
        program = find_program(PROGRAM)
        if program is None:
            fault: str | None = "passt is not installed"
        else:
            fault = await passt_probe.find_fault(self._runner, program, user=self._user, group=self._group)
        return Choice(Backend.PASST) if fault is None else Choice(Backend.SLIRP, f"{fault}: QEMU's own network is used")
