"""Finding VMs again after the daemon was away: by their launch records, never by computing anything anew."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from carmel.errors import CarmelError
from carmel.hypervisor import logs
from carmel.hypervisor.directory import remove_runtime
from carmel.hypervisor.pinning import Pinner
from carmel.hypervisor.pinning.gate import waits_at_gate
from carmel.hypervisor.processes import ProcessTable
from carmel.hypervisor.qemu_machine import QemuMachine, Surroundings
from carmel.hypervisor.record import BadRecord, LaunchRecord, ProcessId
from carmel.hypervisor.running import Running
from carmel.paths import MachinePaths, Paths

_log = logging.getLogger(__name__)
_ATTACH_SECONDS = 5.0


class Adoption:
    """One look through all records, processes and sockets of this host."""

    def __init__(
        self, paths: Paths, table: ProcessTable, pinner: Pinner, surroundings: Callable[[str], Surroundings]
    ) -> None:
        self._paths = paths
        self._table = table
        self._pinner = pinner
        self._surroundings = surroundings

    async def run(self) -> Sequence[QemuMachine]:
        """Every VM with a valid record; what belongs to none is ended and removed."""
        await self._end_waiting()
        records = await asyncio.to_thread(self._records)
        known: set[ProcessId] = set()
        machines = []
        for found in records:
            record = await asyncio.to_thread(self._with_processes, found)
            known.update(each for each in (record.process, *(h.process for h in record.helpers)) if each is not None)
            machines.append(self._machine(record))
        await self._end_strangers(known)
        uids = {record.uid for record in records}
        await asyncio.to_thread(self._remove_stale_sockets, uids)
        await self._pinner.sweep(uids)
        await asyncio.gather(*(self._attach(machine) for machine in machines))
        return machines

    def _records(self) -> list[LaunchRecord]:
        records = []
        for path in sorted(self._paths.machines.glob("*/launch.json")):
            try:
                record = LaunchRecord.load(path, uid=path.parent.name)
            except BadRecord as exc:
                _log.error("%s; its processes are ended", exc.message)
                path.unlink()
            else:
                records.append(record)
        return records

    def _with_processes(self, record: LaunchRecord) -> LaunchRecord:
        """The record with the processes that really run. Those whose pids it lacks are found by their arguments."""
        if record.boot_id != self._table.boot_id():
            return replace(
                record, process=None, helpers=tuple(replace(helper, process=None) for helper in record.helpers)
            )
        helpers = tuple(
            replace(helper, process=self._present(helper.process, helper.argv)) for helper in record.helpers
        )
        found = replace(record, process=self._present(record.process, record.argv), helpers=helpers)
        if found.process is not None and found != record:
            found.save(self._paths.machine(record.uid).launch_record)
        return found

    def _present(self, process: ProcessId | None, argv: Sequence[str]) -> ProcessId | None:
        if process is not None:
            return process if self._table.alive(process) else None
        wanted = " ".join(argv)
        # Joined, since not every system tells where one argument ends.
        found = self._table.find(lambda words: " ".join(words) == wanted)
        return found[0] if found else None

    def _machine(self, record: LaunchRecord) -> QemuMachine:
        qemu = Running(record.process, self._table) if record.process is not None else None
        helpers = [Running(helper.process, self._table) for helper in record.helpers if helper.process is not None]
        return QemuMachine(record, self._surroundings(record.uid), qemu, helpers)

    async def _attach(self, machine: QemuMachine) -> None:
        paths = machine.paths
        with contextlib.suppress(OSError):
            await asyncio.to_thread(logs.cap, paths.serial_log, paths.serial_log_older, logs.SERIAL_LOG_BYTES)
        if machine.record.process is None:
            return
        try:
            await machine.monitor.attach(seconds=_ATTACH_SECONDS)
            await machine.settle()
        except CarmelError as exc:
            _log.warning("the VM %s runs, but does not answer yet: %s", machine.record.uid, exc.message)
            machine.monitor.attach_later()

    async def _end_waiting(self) -> None:
        """Starts that never came to their cpuset: nobody is left who could open their gate."""
        gates = self._paths.runtime / "vm"
        waiting = await asyncio.to_thread(self._table.find, lambda words: waits_at_gate(words, gates))
        await asyncio.gather(*(Running(process, self._table).kill() for process in waiting))

    async def _end_strangers(self, known: set[ProcessId]) -> None:
        """A process that writes into our machines' directory, or holds a socket in ours, and has no record."""
        marks = (f"{self._paths.machines}/", f"{self._paths.runtime / 'vm'}/")

        def ours(words: Sequence[str]) -> bool:
            program = Path(words[0]).name if words else ""
            return program.startswith(("qemu-system-", "passt")) and any(
                mark in word for word in words for mark in marks
            )

        strangers = [each for each in await asyncio.to_thread(self._table.find, ours) if each not in known]
        for process in strangers:
            _log.warning("process %d belongs to no VM and is ended", process.pid)
        await asyncio.gather(*(Running(process, self._table).kill() for process in strangers))

    def _remove_stale_sockets(self, uids: set[str]) -> None:
        kept = {self._paths.machine(uid).runtime for uid in uids}
        for folder in (self._paths.runtime / "vm").glob("*"):
            if folder not in kept:
                remove_runtime(MachinePaths(state=folder, runtime=folder))
