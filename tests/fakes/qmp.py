"""A QMP server that behaves as QEMU's does (docs/interop/qmp-spec.txt): greeting, capabilities, states, events.

It plays a machine with vCPUs that run or do not. ``answers`` are what it says to
other commands. ``mute`` makes it read and never answer; ``hang_up`` closes.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": "fake"}, "capabilities": []}}


class FakeQemu:
    """One machine's monitor. QEMU serves one client at a time; so does this."""

    def __init__(self, name: str = "default/fake/0", answers: Mapping[str, Any] | None = None) -> None:
        self._answers = answers or {}
        self.status = "prelaunch"
        self.mute = False
        self._name = name
        self._writer: asyncio.StreamWriter | None = None

    @asynccontextmanager
    async def listen(self, socket: Path) -> AsyncIterator[FakeQemu]:
        server = await asyncio.start_unix_server(self.serve, str(socket))
        try:
            yield self
        finally:
            server.close()
            await self.hang_up()
            await server.wait_closed()

    async def hang_up(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def emit(self, event: str, data: dict[str, Any] | None = None) -> None:
        now = time.time()
        stamp = {"seconds": int(now), "microseconds": int(now % 1 * 1e6)}
        self._send({"event": event, "timestamp": stamp, **({"data": data} if data is not None else {})})

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk to one client until it leaves."""
        self._writer = writer
        try:
            with suppress(OSError):
                await self._talk(reader)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader) -> None:
        if not self.mute:
            self._send(GREETING)
        negotiated = False
        async for request in _requests(reader):
            if self.mute:
                continue
            command = request["execute"]
            if command == "qmp_capabilities":
                negotiated = True
                answer: dict[str, Any] = {"return": {}}
            elif not negotiated:
                answer = _error("CommandNotFound", "Expecting capabilities negotiation with 'qmp_capabilities'")
            else:
                answer = self._answer(command)
            self._send({**answer, "id": request.get("id")})
            if command == "quit":
                return

    def _answer(self, command: str) -> dict[str, Any]:
        if command in self._answers:
            return {"return": self._answers[command]}
        match command:
            case "query-status":
                return {"return": {"status": self.status, "running": self.status == "running"}}
            case "query-name":
                return {"return": {"name": self._name}}
            case "query-cpus-fast":
                return {"return": [{"cpu-index": 0, "thread-id": os.getpid()}]}
            case "cont":
                self.status = "running"
                self.emit("RESUME")
                return {"return": {}}
            case "stop":
                if self.status == "running":
                    self.status = "paused"
                    self.emit("STOP")
                return {"return": {}}
            case "quit":
                return {"return": {}}
            case _:
                return _error("CommandNotFound", f"The command {command} has not been found")

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\r\n")


async def _requests(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    """QMP is a stream of JSON values: nothing has to stand between them."""
    waiting = ""
    while data := await reader.read(65536):
        waiting += data.decode()
        while waiting := waiting.lstrip():
            try:
                request, end = json.JSONDecoder().raw_decode(waiting)
            except json.JSONDecodeError:
                break
            waiting = waiting[end:]
            yield request


def _error(kind: str, text: str) -> dict[str, Any]:
    return {"error": {"class": kind, "desc": text}}
