"""One VM in its QEMU process: its state by QMP's events, and what can be asked of it.

States follow QEMU's run states (``query-status``, qapi/run-state.json). With ``-action shutdown=pause,panic=pause``
a guest that ends leaves QEMU in ``shutdown`` or ``guest-panicked`` until it is collected.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from carmel.errors import CarmelError, Refused
from carmel.hypervisor import guestagent, logs, plugging, savedstate
from carmel.hypervisor.account import Account
from carmel.hypervisor.config import AnyDisk, NicConfig, Pinning
from carmel.hypervisor.departures import Departures
from carmel.hypervisor.devices import Device, DeviceKind
from carmel.hypervisor.directory import remove_runtime
from carmel.hypervisor.failures import QEMUNotAnswering, not_running
from carmel.hypervisor.files import sync_directory
from carmel.hypervisor.machine import Launch, MachineState
from carmel.hypervisor.passthrough import VfioGroups
from carmel.hypervisor.pinning import Cpuset, Pinner, holding
from carmel.hypervisor.processes import ProcessTable
from carmel.hypervisor.qmp import ANSWER_SECONDS, QmpConnection, QmpEvent
from carmel.hypervisor.record import LaunchRecord
from carmel.hypervisor.running import Running, end_all
from carmel.hypervisor.termination import termination
from carmel.paths import MachinePaths
from carmel.resources.virtualmachine import GuestStatus, Termination, TerminationReason

_log = logging.getLogger(__name__)
_QUIT_SECONDS = 5.0
_RECONNECT_SECONDS = (0.1, 0.5, 2.0, 5.0)
_PAUSED = frozenset({"paused", "prelaunch", "inmigrate", "save-vm", "restore-vm", "io-error", "finish-migrate"})


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a machine needs of its hypervisor."""

    paths: MachinePaths
    table: ProcessTable
    changed: Callable[[str, str], None]
    """Called with the uid and what changed."""
    gone: Callable[[str], Awaitable[None]]
    """Called with the uid when nothing is left of the run."""
    pinner: Pinner
    groups: VfioGroups
    account: Callable[[], Account]
    """Who QEMU runs as. Raises ``Refused`` (``UserMissing``)."""


class QemuMachine:
    """Fulfils ``machine.Machine``. Made by ``QemuHypervisor``."""

    def __init__(
        self, record: LaunchRecord, around: Surroundings, qemu: Running | None, helpers: Sequence[Running]
    ) -> None:
        self.record = record
        self._around = around
        self._qemu = qemu
        self._helpers = list(helpers)
        self._qmp: QmpConnection | None = None
        self._state = MachineState.PAUSED if qemu is not None else MachineState.ENDED
        self._guest_reason: str | None = None
        self._log_seen = -1
        self._busy = asyncio.Lock()
        self.departures = Departures()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch = self._background(self._watch_process(qemu)) if qemu is not None else None

    # -- what it is ---------------------------------------------------------------------------------------------
    @property
    def launch(self) -> Launch:
        return self.record.to_launch()

    @property
    def state(self) -> MachineState:
        return self._state

    @property
    def pinning(self) -> Pinning | None:
        return self.record.pinning

    @property
    def paths(self) -> MachinePaths:
        return self._around.paths

    @property
    def qemu_status(self) -> int | None:
        """QEMU's exit status, once it ended and if it was started here."""
        return self._qemu.status if self._qemu is not None else None

    @property
    def nics(self) -> Sequence[str]:
        return self._names(DeviceKind.NIC)

    @property
    def disks(self) -> Sequence[str]:
        return self._names(DeviceKind.DISK)

    # -- what can be done with it -------------------------------------------------------------------------------
    async def resume(self) -> None:
        async with self._busy:
            await self.execute("cont")

    async def pause(self) -> None:
        async with self._busy:
            await self.execute("stop")

    async def request_shutdown(self) -> None:
        await self.execute("system_powerdown")

    async def reset(self) -> None:
        await self.execute("system_reset")

    async def kill(self, reason: str) -> Termination:
        # Nobody waits for a guest any more that is to go.
        self.departures.give_up(not_running(self.record.uid))
        async with self._busy:
            return await self._end(TerminationReason.HOST_REQUEST, reason)

    async def suspend(self) -> None:
        async with self._busy:
            await savedstate.save(self)
            await self._end(TerminationReason.HOST_REQUEST, "suspended")

    async def collect(self) -> Termination:
        async with self._busy:
            if self._state in (MachineState.RUNNING, MachineState.PAUSED):
                raise Refused(f"the VM {self.record.uid} still runs", code="MachineRunning")
            return await self._end(None, "")

    async def repin(self, pinning: Pinning) -> None:
        await self._undivided(holding.repin(self, pinning))

    async def plug_nic(self, nic: NicConfig) -> None:
        await self._undivided(plugging.plug_nic(self, nic))

    async def unplug_nic(self, name: str) -> None:
        await self._undivided(plugging.unplug(self, DeviceKind.NIC, name))

    async def plug_disk(self, disk: AnyDisk) -> None:
        await self._undivided(plugging.plug_disk(self, disk))

    async def unplug_disk(self, name: str) -> None:
        await self._undivided(plugging.unplug(self, DeviceKind.DISK, name))

    async def migration_blockers(self) -> Sequence[str]:
        info = await self.execute("query-migrate")
        return [str(reason) for reason in info.get("blocked-reasons") or ()]

    async def guest(self) -> GuestStatus | None:
        return await guestagent.status(self.paths.agent_socket) if await self._agent_listens() else None

    async def guest_addresses(self) -> dict[str, list[str]]:
        return await guestagent.addresses(self.paths.agent_socket) if await self._agent_listens() else {}

    async def execute(self, command: str, arguments: dict[str, object] | None = None) -> Any:
        """Run one QMP command. Raises ``QMPFailed``, ``QEMUNotAnswering``, ``Refused`` (``MachineNotRunning``)."""
        return await self.qmp.execute(command, arguments)

    @property
    def qmp(self) -> QmpConnection:
        if self._qmp is not None:
            return self._qmp
        if self._state is MachineState.ENDED:
            raise not_running(self.record.uid)
        raise QEMUNotAnswering("QEMU's monitor is not connected at the moment")

    # -- for holding it at its place (pinning) ------------------------------------------------------------------
    @property
    def pinner(self) -> Pinner:
        return self._around.pinner

    @property
    def cpuset(self) -> Cpuset:
        return self.pinner.cpuset(self.record.uid, self.record.launch_id)

    @property
    def pids(self) -> tuple[int, tuple[int, ...]]:
        """QEMU's, and its helpers'."""
        return self.require_process().process.pid, tuple(each.process.pid for each in self._helpers if not each.ended)

    def require_process(self) -> Running:
        """Raises ``Refused`` (``MachineNotRunning``)."""
        if self._qemu is None or self._qemu.ended:
            raise not_running(self.record.uid)
        return self._qemu

    async def keep_pinning(self, pinning: Pinning) -> None:
        """Write it into the launch record. Raises ``OSError``; then the record is as before."""
        record = replace(self.record, pinning=pinning)
        await asyncio.to_thread(record.save, self.paths.launch_record)
        self.record = record

    # -- for plugging -------------------------------------------------------------------------------------------
    @property
    def groups(self) -> VfioGroups:
        return self._around.groups

    def account(self) -> Account:
        """Who QEMU runs as. Raises ``Refused`` (``UserMissing``)."""
        return self._around.account()

    async def keep_devices(self, devices: tuple[Device, ...]) -> None:
        """Write them into the launch record. Raises ``OSError``; then the record is as before."""
        record = replace(self.record, devices=devices)
        await asyncio.to_thread(record.save, self.paths.launch_record)
        self.record = record

    # -- for the hypervisor -------------------------------------------------------------------------------------
    async def attach(self, *, seconds: float = ANSWER_SECONDS) -> None:
        """Connect the monitor and read the state. Raises ``QEMUNotAnswering``."""
        qmp = QmpConnection(self.record.uid, self._on_event, self._on_lost)
        await qmp.connect(self.paths.qmp_socket, seconds=seconds)
        self._qmp = qmp
        answer = await qmp.execute("query-status", seconds=seconds)
        self._set_state(_state_of(str(answer["status"])), "attached")

    async def settle(self) -> None:
        """Undo what an earlier daemon was in the middle of."""
        status = (await self.execute("query-status"))["status"]
        if status == "inmigrate":
            # A restore that never got its state: the saved state is still there.
            self.record = self.record.with_ending(TerminationReason.HOST_REQUEST.value, "the restore was interrupted")
            if self._qemu is not None:
                await self._qemu.kill()
            self._set_state(MachineState.ENDED, "ended")
        elif self.record.ending is None and (await self.execute("query-migrate")).get("status") is not None:
            # A suspend that did not come to its end. Whoever wanted it asks again.
            await savedstate.undo(self)
        if self._state is not MachineState.ENDED:
            await holding.hold(self)
            await self._settle_devices()
        await self.look_for_panic()

    async def look_for_panic(self) -> None:
        """Whether the guest hangs in a panic that only its console tells of."""
        size = await asyncio.to_thread(logs.size_of, self.paths.serial_log)
        if self._state is not MachineState.RUNNING or size == self._log_seen:
            return
        self._log_seen = size
        message = await asyncio.to_thread(logs.panic_message, self.paths.serial_log)
        if message is not None:
            self._guest_reason = message
            self._set_state(MachineState.PANICKED, "guest panicked")
            # It would spin for ever.
            await self.execute("stop")

    def attach_later(self) -> None:
        """Go on trying in the background."""
        self._background(self._reattach())

    async def let_go(self) -> None:
        """The daemon ends, the VM does not."""
        await self.detach()
        for process in self._processes():
            await process.let_go()

    async def detach(self) -> None:
        """Close the monitor and follow nothing any more; the processes are still watched."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._disconnect()

    # -- within -------------------------------------------------------------------------------------------------
    async def _undivided(self, work: Coroutine[Any, Any, None]) -> None:
        """Nothing else happens to the VM meanwhile, and half of it is worse than a late cancellation."""
        doing = asyncio.create_task(self._alone(work))
        try:
            await asyncio.shield(doing)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await doing
            raise

    async def _alone(self, work: Coroutine[Any, Any, None]) -> None:
        async with self._busy:
            await work

    def _names(self, kind: DeviceKind) -> list[str]:
        return [device.name for device in self.record.devices or () if device.kind is kind and device.plugged]

    def _processes(self) -> list[Running]:
        return [*([self._qemu] if self._qemu is not None else []), *self._helpers]

    async def _agent_listens(self) -> bool:
        """Whether the guest's side of the channel is open: nobody waits for an agent that is not there."""
        if self._state is not MachineState.RUNNING:
            return False
        channels = await self.execute("query-chardev")
        return any(channel["label"] == "agent0" and channel["frontend-open"] for channel in channels)

    async def _end(self, reason: TerminationReason | None, message: str) -> Termination:
        """End what still runs and remove what the run left. Done twice, it says the same as far as it still can."""
        state, around = self._state, self._around
        if reason is not None and state is not MachineState.ENDED:
            self.record = self.record.with_ending(reason.value, message)
            await asyncio.to_thread(self._save_record)
        if self._qemu is not None and not self._qemu.ended:
            await self._end_qemu(self._qemu)
        await end_all(self._helpers)
        await self._disconnect()
        if self.record.pinning is not None:
            await self.cpuset.remove()
        words = await asyncio.to_thread(logs.last_words, self.paths.qemu_log, self.record.log_offset)
        result = termination(
            self.record,
            state,
            now=datetime.now(UTC),
            boot_id=around.table.boot_id(),
            status=self.qemu_status,
            words=words,
            guest_reason=self._guest_reason,
        )
        await asyncio.to_thread(self._remove)
        self._set_state(MachineState.ENDED, "collected")
        await around.gone(self.record.uid)
        return result

    async def _end_qemu(self, qemu: Running) -> None:
        """Ask first, so that images are closed cleanly."""
        if self._qmp is not None:
            with contextlib.suppress(CarmelError):
                await self._qmp.execute("quit", seconds=_QUIT_SECONDS)
                await qemu.wait_for(_QUIT_SECONDS)
        if not qemu.ended:
            await qemu.kill()
        if not qemu.ended:
            raise QEMUNotAnswering(
                f"QEMU (pid {qemu.process.pid}) cannot be ended",
                hint="it hangs in the host's kernel, most often for a disk that does not answer",
            )

    def _save_record(self) -> None:
        self.record.save(self.paths.launch_record)

    def _remove(self) -> None:
        self._around.groups.take_back(self.record.functions)
        remove_runtime(self.paths)
        self.paths.launch_record.unlink(missing_ok=True)
        if self.paths.state.is_dir():
            sync_directory(self.paths.state)

    async def _disconnect(self) -> None:
        qmp, self._qmp = self._qmp, None
        if qmp is not None:
            await qmp.close()

    def _on_event(self, event: QmpEvent) -> None:
        match event.name:
            case "SHUTDOWN" if event.data.get("guest"):
                self._set_state(MachineState.SHUTDOWN, "guest shut down")
            case "GUEST_PANICKED":
                self._guest_reason = _panic_reason(event.data)
                self._set_state(MachineState.PANICKED, "guest panicked")
            case "STOP" if self._state is MachineState.RUNNING:
                self._set_state(MachineState.PAUSED, "paused")
            case "RESUME":
                self._set_state(MachineState.RUNNING, "resumed")
            case "RESET" if self._state in (MachineState.SHUTDOWN, MachineState.PANICKED):
                self._set_state(MachineState.PAUSED, "reset")
            case "DEVICE_DELETED":
                self._device_is_gone(str(event.data.get("device")))
            case "VSERPORT_CHANGE" if event.data.get("id") == "agent":
                self._around.changed(self.record.uid, "guest agent")
            case _:
                pass

    def _device_is_gone(self, name: str) -> None:
        waited = self.departures.gone(name)
        if not waited and any(device.id == name for device in self.record.devices or ()):
            # The guest took its time, or let go of it by itself.
            self._background(self._settle_devices())

    async def _settle_devices(self) -> None:
        try:
            await self._alone(plugging.settle(self))
        except CarmelError as exc:
            _log.warning("what is plugged into the VM %s is not known: %s", self.record.uid, exc.message)
        self._around.changed(self.record.uid, "devices")

    def _on_lost(self) -> None:
        self._qmp = None
        if self._qemu is not None and not self._qemu.ended:
            self.attach_later()

    async def _reattach(self) -> None:
        """QEMU takes one monitor client at a time; whoever had it may have gone."""
        attempt = 0
        while self._qmp is None and self._qemu is not None:
            if await self._qemu.wait_for(_RECONNECT_SECONDS[min(attempt, len(_RECONNECT_SECONDS) - 1)]):
                return
            with contextlib.suppress(CarmelError):
                await self.attach()
            attempt += 1

    async def _watch_process(self, qemu: Running) -> None:
        await qemu.wait()
        self.departures.give_up(not_running(self.record.uid))
        # An end that the guest brought about is kept: collect() tells of it.
        if self._state not in (MachineState.SHUTDOWN, MachineState.PANICKED):
            self._set_state(MachineState.ENDED, "ended")

    def _set_state(self, state: MachineState, what: str) -> None:
        if state is not self._state or what == "attached":
            self._state = state
            self._around.changed(self.record.uid, what)

    def _background(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _state_of(status: str) -> MachineState:
    if status == "running":
        return MachineState.RUNNING
    if status == "shutdown":
        return MachineState.SHUTDOWN
    if status == "guest-panicked":
        return MachineState.PANICKED
    if status not in _PAUSED:
        _log.info("run state %s is taken for paused", status)
    return MachineState.PAUSED


def _panic_reason(data: Any) -> str:
    info = data.get("info") or {}
    kind = info.get("type")
    return f"the guest's kernel panicked ({kind})" if kind else "the guest's kernel panicked"
