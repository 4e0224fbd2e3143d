"""The process that exports one namespace: started, spoken to, ended. It belongs to the NIC, not to the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carmel.errors import CarmelError, Refused, TimedOut, Unavailable
from carmel.hypervisor import logs
from carmel.hypervisor.account import Account
from carmel.hypervisor.diagnosis import exit_in_words, explain
from carmel.hypervisor.files import write_atomically
from carmel.hypervisor.pinning.scope import move_into_scope, systemd_runs
from carmel.hypervisor.processes import ProcessTable
from carmel.hypervisor.psk import Psk
from carmel.hypervisor.qmp import QmpConnection
from carmel.hypervisor.record import ProcessId
from carmel.hypervisor.running import Running
from carmel.hypervisor.spawn import Spawn, spawn
from carmel.paths import ExportPaths
from carmel.run import Runner
from carmel.smartnic.nvme.export import LIMITS_PATH, same_limits, throttle
from carmel.smartnic.nvme.functions import Limits

_START_SECONDS = 20.0
_POLL_SECONDS = 0.02
_NO_ADDRESS = "Cannot assign requested address"


@dataclass(frozen=True, slots=True)
class Exporter:
    """One that was started, now or by an earlier daemon."""

    argv: tuple[str, ...]
    process: Running
    paths: ExportPaths

    async def set_limits(self, limits: Limits) -> None:
        """From the next request on. Raises ``Unavailable`` (``QEMUNotAnswering``)."""
        where = {"path": LIMITS_PATH, "property": "limits"}
        if not same_limits(await self._ask("qom-get", where), limits):
            await self._ask("qom-set", {**where, "value": throttle(limits)})

    async def end(self) -> None:
        """Raises ``Unavailable`` (``ExporterHangs``) when the kernel cannot end it."""
        await self.process.terminate()
        if not self.process.ended:
            raise Unavailable(
                f"qemu-storage-daemon (pid {self.process.process.pid}) cannot be ended",
                code="ExporterHangs",
                hint="it waits in the kernel for its blocks: it ends when the path is back, or stallSeconds are over",
            )
        await asyncio.to_thread(shutil.rmtree, self.paths.runtime, ignore_errors=True)

    async def _ask(self, command: str, arguments: Mapping[str, object]) -> Any:
        qmp = QmpConnection("exporter", lambda _event: None, lambda: None)
        await qmp.connect(self.paths.qmp_socket)
        try:
            return await qmp.execute(command, arguments)
        finally:
            await qmp.close()


def write_keys(paths: ExportPaths, psk: Psk, account: Account) -> None:
    """For the account that exports, and nobody else. GnuTLS reads the file at each handshake: a new key counts at once.
    Blocking."""
    file = paths.keys / "keys.psk"
    if file.is_file() and file.read_bytes() == psk.line:
        return
    paths.runtime.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
    paths.keys.mkdir(parents=True, exist_ok=True)
    write_atomically(file, psk.line)
    for place in (paths.runtime, paths.keys):
        place.chmod(0o700)
    if account.uid is not None and account.gid is not None:
        for place in (file, paths.keys, paths.runtime):
            os.chown(place, account.uid, account.gid)


async def start(
    argv: Sequence[str], paths: ExportPaths, device: Path, account: Account, table: ProcessTable, runner: Runner
) -> Exporter:
    """It exports when this returns. Raises what it said when it ended instead, and leaves nothing then."""
    await asyncio.to_thread(_prepare, paths, device, account)
    offset = await asyncio.to_thread(logs.size_of, paths.log)
    child = await asyncio.to_thread(spawn, Spawn(argv, paths.log, account))
    running = Running(table.identify(child.pid) or ProcessId(child.pid, ""), table, child)
    try:
        await _until_exporting(running, paths, offset)
    except BaseException:
        await running.kill()
        raise
    if systemd_runs():
        unit = f"carmel-nvme-{paths.runtime.name}-{secrets.token_hex(4)}.scope"
        await move_into_scope(runner, unit, "Carmel NVMe export", [child.pid])
    return Exporter(tuple(argv), running, paths)


def _prepare(paths: ExportPaths, device: Path, account: Account) -> None:
    paths.log.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
    logs.cap(paths.log, None, logs.QEMU_LOG_BYTES)
    paths.qmp_socket.unlink(missing_ok=True)
    try:
        account.give(device)
    except OSError as exc:
        raise Refused(
            f"{device} cannot be given to the exporter: {exc.strerror}", code="DeviceMissing", retryable=True
        ) from exc


async def _until_exporting(running: Running, paths: ExportPaths, offset: int) -> None:
    """Its monitor answers once it has done all that its arguments say."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_START_SECONDS):
            while not running.ended:
                if paths.qmp_socket.exists() and await _answers(paths.qmp_socket):
                    return
                await asyncio.sleep(_POLL_SECONDS)
    if running.ended:
        words = await asyncio.to_thread(logs.last_words, paths.log, offset)
        if any(_NO_ADDRESS in line for line in words):
            raise Unavailable(
                "the address to export at is not one of this machine's (yet)",
                code="AddressMissing",
                hint="carmeld --nbd-address says which it is",
            )
        raise explain("qemu-storage-daemon", words, exit_in_words(running.status))
    raise TimedOut(f"qemu-storage-daemon was not ready within {_START_SECONDS:g} s", code="ExporterNotReady")


async def _answers(socket: Path) -> bool:
    qmp = QmpConnection("exporter", lambda _event: None, lambda: None)
    try:
        await qmp.connect(socket, seconds=_START_SECONDS)
    except CarmelError:
        return False
    await qmp.close()
    return True
