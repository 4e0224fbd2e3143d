"""A connection to QEMU's monitor: typed commands, time limits, and our own errors (over the package ``qemu.qmp``)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qemu.qmp import ConnectError, ExecInterruptedError, ExecuteError, QMPClient, QMPError, Runstate
from qemu.qmp.message import Message

from carmel.hypervisor.failures import QEMUNotAnswering, QMPFailed

ANSWER_SECONDS = 10.0
"""Longest wait for an answer. QEMU answers in milliseconds unless its disk or its host hangs."""


@dataclass(frozen=True, slots=True)
class QmpEvent:
    """``seconds`` is QEMU's clock, in seconds since 1970."""

    name: str
    data: Mapping[str, Any]
    seconds: float


class QmpConnection:
    """One session. Calls ``on_event`` for each event and ``on_lost`` once when the session ends by itself."""

    def __init__(self, name: str, on_event: Callable[[QmpEvent], None], on_lost: Callable[[], None]) -> None:
        self._client = QMPClient(name)
        # The package logs every lost connection as an error; here that is a VM that ended.
        self._client.logger = logging.getLogger("carmel.hypervisor.qmp.quiet")
        self._client.logger.setLevel(logging.CRITICAL + 1)
        self._on_event = on_event
        self._on_lost = on_lost
        self._tasks: list[asyncio.Task[None]] = []

    async def connect(self, where: Path | socket.socket, *, seconds: float = ANSWER_SECONDS) -> None:
        """Connect to a path, or use a socket that is connected, and negotiate. Raises ``QEMUNotAnswering``."""
        address = str(where) if isinstance(where, Path) else where
        try:
            async with asyncio.timeout(seconds):
                await self._client.connect(address)
        except TimeoutError as exc:
            await self._drop()
            raise QEMUNotAnswering(f"QEMU's monitor did not answer within {seconds:g} s") from exc
        except (ConnectError, OSError) as exc:
            await self._drop()
            raise QEMUNotAnswering(f"QEMU's monitor cannot be reached: {exc}") from exc
        listening = asyncio.create_task(self._listen())
        self._tasks = [listening, asyncio.create_task(self._ended(listening))]

    async def execute(
        self, command: str, arguments: Mapping[str, object] | None = None, *, seconds: float = ANSWER_SECONDS
    ) -> Any:
        """Run one command. Raises ``QMPFailed`` or ``QEMUNotAnswering``."""
        try:
            async with asyncio.timeout(seconds):
                return await self._client.execute(command, dict(arguments) if arguments else None)
        except ExecuteError as exc:
            raise QMPFailed(command, str(exc), exc.error_class) from exc
        except TimeoutError as exc:
            raise QEMUNotAnswering(f"QEMU did not answer {command} within {seconds:g} s") from exc
        except (ExecInterruptedError, QMPError, OSError, EOFError) as exc:
            raise QEMUNotAnswering(f"QEMU closed its monitor during {command}") from exc

    async def send_file(self, name: str, descriptor: int) -> None:
        """Give QEMU an open file, under ``name`` (``getfd``)."""
        try:
            self._client.send_fd_scm(descriptor)
        except (QMPError, OSError, AssertionError) as exc:
            raise QEMUNotAnswering("QEMU closed its monitor") from exc
        await self.execute("getfd", {"fdname": name})

    async def close(self) -> None:
        """Let go; QEMU runs on."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._drop()

    async def _listen(self) -> None:
        async for message in self._client.events:
            event = _event(message)
            if event is not None:
                self._on_event(event)

    async def _ended(self, listening: asyncio.Task[None]) -> None:
        while self._client.runstate is Runstate.RUNNING:
            await self._client.runstate_changed()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        # QEMU's last events say why it ended.
        for message in self._client.events.clear():
            if (event := _event(message)) is not None:
                self._on_event(event)
        await self._drop()
        self._on_lost()

    async def _drop(self) -> None:
        # Raises what ended the session, which we were told already.
        with contextlib.suppress(Exception):
            await self._client.disconnect()


def _event(message: Message) -> QmpEvent | None:
    """``None`` for what is not an event as QAPI describes it."""
    try:
        stamp: Any = message["timestamp"]
        data: Any = message.get("data") or {}
        return QmpEvent(str(message["event"]), dict(data), stamp["seconds"] + stamp["microseconds"] / 1e6)
    except (KeyError, TypeError, ValueError):
        return None
