"""One start of one VM, all or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from carmel.errors import CarmelError, InsufficientStorage, Refused
from carmel.hypervisor import logs, savedstate
from carmel.hypervisor.account import Account
from carmel.hypervisor.commandline import CommandLine, Platform, Sockets, Start, command_line
from carmel.hypervisor.config import DiskConfig, Helper, MachineConfig, NbdDiskConfig
from carmel.hypervisor.diagnosis import exit_in_words, explain_start
from carmel.hypervisor.directory import listen, prepare, remove_runtime, write_key
from carmel.hypervisor.failures import QEMUFailed, QEMUNotAnswering
from carmel.hypervisor.guestmemory import start_seconds
from carmel.hypervisor.helpers import wait_until_ready
from carmel.hypervisor.layers import disk_layers
from carmel.hypervisor.memlock import locked_bytes
from carmel.hypervisor.pinning.abilities import Means
from carmel.hypervisor.pinning.gate import Gate
from carmel.hypervisor.pinning.holding import check_pinning, pin
from carmel.hypervisor.pinning.scope import move_into_scope, scope_name, systemd_runs
from carmel.hypervisor.qemu_machine import QemuMachine, Surroundings
from carmel.hypervisor.record import HelperRecord, LaunchRecord, ProcessId
from carmel.hypervisor.running import Running
from carmel.hypervisor.spawn import Spawn, spawn
from carmel.paths import MachinePaths, short_hash
from carmel.run import Runner

_log = logging.getLogger(__name__)
_START_SECONDS = 60.0
"""A very slow host needs this long to set up a VM with much memory; a QEMU that fails ends much sooner."""


@dataclass(slots=True)
class Launching:
    """Everything that one start needs. ``run`` once."""

    config: MachineConfig
    platform: Platform
    around: Surroundings
    runner: Runner
    account: Account
    paused: bool
    restore: bool

    @property
    def _paths(self) -> MachinePaths:
        return self.around.paths

    async def run(self) -> QemuMachine:
        """Raises what ``Hypervisor.launch`` says; then nothing of the start is left."""
        try:
            record, listeners = await asyncio.to_thread(self._prepare)
        except OSError as exc:
            await asyncio.to_thread(self._clean)
            raise _disk_error(exc) from exc
        except BaseException:
            await asyncio.to_thread(self._clean)
            raise
        started: list[Running] = []
        try:
            return await self._start(record, listeners, started)
        except BaseException:
            for process in started:
                await process.kill()
            if record.pinning is not None:
                await self.around.pinner.cpuset(record.uid, record.launch_id).remove()
            await asyncio.to_thread(self._clean)
            raise
        finally:
            for listener in listeners:
                listener.close()

    def _prepare(self) -> tuple[LaunchRecord, list[socket.socket]]:
        """Files, sockets and the record, durable before anything runs."""
        if self.config.pinning is not None:
            check_pinning(self.config.pinning, self.config.cpu.count)
            self.around.pinner.require(self.config.pinning)
        layers = {disk.name: disk_layers(disk) for disk in self.config.disks if isinstance(disk, DiskConfig)}
        if self.restore and not self._paths.saved_state.exists():
            raise Refused("there is no saved state to restore", code="NoSavedState")
        prepare(self._paths, self.config, layers, self.platform.firmware, self.account)
        listeners: list[socket.socket] = []
        try:
            sockets = (self._paths.qmp_socket, self._paths.serial_socket, self._paths.agent_socket)
            listeners.extend(listen(path) for path in sockets)
            launch_id = secrets.token_hex(16)
            start = Start(
                launch_id, Sockets(*(each.fileno() for each in listeners)), paused=self.paused, incoming=self.restore
            )
            line = command_line(self.config, self.platform, self._paths, start, layers)
            record = self._record(launch_id, line)
            record.save(self._paths.launch_record)
            self._hand_over(record)
        except BaseException:
            for listener in listeners:
                listener.close()
            raise
        return record, listeners

    def _hand_over(self, record: LaunchRecord) -> None:
        """What QEMU's account is given for this run only, by the record: so it is taken back whatever happens."""
        keys = {disk.name: disk.psk for disk in self.config.disks if isinstance(disk, NbdDiskConfig)}
        for device in record.devices or ():
            for name in device.objects:
                write_key(self._paths.key_folder(name), keys[device.name], self.account)
            if device.function is not None:
                self.around.groups.hand_over(device.function, self.account)

    def _record(self, launch_id: str, line: CommandLine) -> LaunchRecord:
        return LaunchRecord(
            uid=self.config.uid,
            launch_id=launch_id,
            argv=line.argv,
            machine_type=line.machine_type,
            accelerator=self.platform.accelerator,
            cpu_model=line.cpu_model,
            started_at=datetime.now(UTC),
            boot_id=self.around.table.boot_id(),
            helpers=tuple(HelperRecord(helper.name, helper.argv) for helper in self._helpers()),
            log_offset=logs.size_of(self._paths.qemu_log),
            pinning=self.config.pinning,
            devices=line.devices,
            started_with=tuple(device.id for device in line.devices),
            iommu=self.config.iommu,
        )

    def _helpers(self) -> list[Helper]:
        return [nic.helper for nic in self.config.nics if nic.helper is not None]

    async def _start(self, record: LaunchRecord, listeners: list[socket.socket], started: list[Running]) -> QemuMachine:
        helpers = []
        for helper in self._helpers():
            process = await self._spawn(self._what(helper.argv), started)
            helpers.append(process)
            await wait_until_ready(helper, process, self._paths.qemu_log, record.log_offset)
        descriptors = [fd for nic in self.config.nics for fd in nic.descriptors]
        qemu = await self._start_qemu(record, [*(each.fileno() for each in listeners), *descriptors], started)
        for listener in listeners:
            # QEMU has them: when it ends, so do connections to it.
            listener.close()
        record = replace(
            record,
            process=qemu.process,
            helpers=tuple(
                replace(entry, process=process.process) for entry, process in zip(record.helpers, helpers, strict=True)
            ),
        )
        machine = QemuMachine(record, self.around, qemu, helpers)
        try:
            await asyncio.gather(
                asyncio.to_thread(record.save, self._paths.launch_record),
                self._own_unit(record, started),
                self._until_answering(machine, qemu, record),
            )
            if record.pinning is not None:
                await pin(machine, record.pinning)
            if self.restore:
                await self._restore(machine)
        except BaseException:
            await machine.monitor.detach()
            raise
        return machine

    async def _start_qemu(self, record: LaunchRecord, descriptors: list[int], started: list[Running]) -> Running:
        """QEMU, which is in its cpuset, if it is to have one, when its first instruction runs."""
        cpuset = self.around.pinner.cpuset(record.uid, record.launch_id)
        if record.pinning is None or not cpuset.gated:
            return await self._spawn(self._what(record.argv, descriptors), started)
        with Gate(self._paths.runtime) as gate:
            waiting = self._what(gate.argv(record.argv), [*descriptors, gate.descriptor])
            qemu = await self._spawn(waiting, started)
            await cpuset.start([each.process.pid for each in started], record.pinning, self._title)
            gate.open()
        return qemu

    def _what(self, argv: Sequence[str], descriptors: Sequence[int] = ()) -> Spawn:
        cpus = self.around.pinner.start_on(self.config.pinning)
        account = self.account.joining(nic.group for nic in self.config.nics if nic.group is not None)
        locked = locked_bytes(self.config.memory_bytes) if self.config.functions else None
        return Spawn(argv, self._paths.qemu_log, account, descriptors, cpus, locked)

    @property
    def _title(self) -> str:
        return f"Carmel VM {self.config.namespace}/{self.config.name}"

    async def _spawn(self, what: Spawn, started: list[Running]) -> Running:
        child = await asyncio.to_thread(spawn, what)
        table = self.around.table
        process = table.identify(child.pid) or ProcessId(child.pid, "")
        running = Running(process, table, child)
        started.append(running)
        return running

    async def _own_unit(self, record: LaunchRecord, started: list[Running]) -> None:
        if not systemd_runs() or (record.pinning is not None and self.around.pinner.abilities.means is Means.SCOPE):
            return
        unit = scope_name(short_hash(record.uid), record.launch_id)
        problem = await move_into_scope(self.runner, unit, self._title, [each.process.pid for each in started])
        if problem is not None:
            _log.warning("%s stays in the daemon's own unit: %s", self._title, problem)

    async def _until_answering(self, machine: QemuMachine, qemu: Running, record: LaunchRecord) -> None:
        """QEMU answers once the machine is set up; if it cannot set it up, it ends."""
        try:
            await machine.monitor.attach(seconds=_START_SECONDS + start_seconds(self.config))
        except QEMUNotAnswering:
            if not await qemu.wait_for(1.0):
                raise
            raise self._last_words(record, qemu) from None

    def _last_words(self, record: LaunchRecord, qemu: Running) -> CarmelError:
        words = logs.last_words(self._paths.qemu_log, record.log_offset)
        return explain_start(self.config, words, exit_in_words(qemu.status))

    async def _restore(self, machine: QemuMachine) -> None:
        try:
            await savedstate.load(machine, paused=self.paused)
        except QEMUNotAnswering as exc:
            words = await asyncio.to_thread(logs.last_words, self._paths.qemu_log, machine.record.log_offset)
            raise QEMUFailed(
                f"the saved state cannot be restored: {words[-1] if words else exc.message}",
                hint="start the VM without it: power it off, then on",
            ) from exc
        await asyncio.to_thread(self._paths.saved_state.unlink)

    def _clean(self) -> None:
        self.around.groups.take_back(self.config.functions)
        remove_runtime(self._paths)
        with contextlib.suppress(OSError):
            self._paths.launch_record.unlink(missing_ok=True)


def _disk_error(exc: OSError) -> CarmelError:
    if exc.errno in (28, 122):
        return InsufficientStorage(f"the disk is full: {exc.filename or exc}", hint="free some space")
    return Refused(f"the VM's files cannot be made: {exc}", code="FilesNotWritable")
