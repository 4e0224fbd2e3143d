"""One VM in its QEMU process: what can be asked of it, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from carmel.errors import CarmelError, Refused
from carmel.hypervisor import guestagent, logs, plugged, plugging, savedstate, unplugging
from carmel.hypervisor.account import Account
from carmel.hypervisor.config import AnyDisk, NicConfig, Pinning
from carmel.hypervisor.devices import Device, DeviceKind
from carmel.hypervisor.directory import remove_runtime
from carmel.hypervisor.failures import QEMUNotAnswering, not_running
from carmel.hypervisor.files import sync_directory
from carmel.hypervisor.machine import Launch, MachineState
from carmel.hypervisor.monitor import Monitor
from carmel.hypervisor.nbdservers import Away
from carmel.hypervisor.passthrough import VfioGroups
from carmel.hypervisor.pinning import Cpuset, Pinner, holding
from carmel.hypervisor.processes import ProcessTable
from carmel.hypervisor.record import LaunchRecord
from carmel.hypervisor.running import Running, end_all
from carmel.hypervisor.termination import termination
from carmel.paths import MachinePaths
from carmel.resources.virtualmachine import GuestStatus, Termination, TerminationReason

_log = logging.getLogger(__name__)
_QUIT_SECONDS = 5.0


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
        self._busy = asyncio.Lock()
        self.servers_away: dict[str, Away] = {}
        """Of disks that are to go, by device."""
        self.monitor = Monitor(record.uid, around.paths, qemu, changed=self._changed, left=self._left)

    # -- what it is ---------------------------------------------------------------------------------------------
    @property
    def launch(self) -> Launch:
        return self.record.to_launch()

    @property
    def state(self) -> MachineState:
        return self.monitor.state

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
        self.monitor.departures.give_up(not_running(self.record.uid))
        async with self._busy:
            return await self._end(TerminationReason.HOST_REQUEST, reason)

    async def suspend(self) -> None:
        async with self._busy:
            await savedstate.save(self)
            await self._end(TerminationReason.HOST_REQUEST, "suspended")

    async def collect(self) -> Termination:
        async with self._busy:
            if self.state in (MachineState.RUNNING, MachineState.PAUSED):
                raise Refused(f"the VM {self.record.uid} still runs", code="MachineRunning")
            return await self._end(None, "")

    async def repin(self, pinning: Pinning) -> None:
        await self._undivided(holding.repin(self, pinning))

    async def plug_nic(self, nic: NicConfig) -> None:
        await self._undivided(plugging.plug_nic(self, nic))

    async def unplug_nic(self, name: str) -> None:
        await self._undivided(unplugging.unplug(self, DeviceKind.NIC, name))

    async def plug_disk(self, disk: AnyDisk) -> None:
        await self._undivided(plugging.plug_disk(self, disk))

    async def unplug_disk(self, name: str) -> None:
        await self._undivided(unplugging.unplug(self, DeviceKind.DISK, name))

    async def migration_blockers(self) -> Sequence[str]:
        info = await self.execute("query-migrate")
        return [str(reason) for reason in info.get("blocked-reasons") or ()]

    async def guest(self) -> GuestStatus | None:
        return await guestagent.status(self.paths.agent_socket) if await self._agent_listens() else None

    async def guest_addresses(self) -> dict[str, list[str]]:
        return await guestagent.addresses(self.paths.agent_socket) if await self._agent_listens() else {}

    async def execute(self, command: str, arguments: dict[str, object] | None = None) -> Any:
        """Run one QMP command. Raises ``QMPFailed``, ``QEMUNotAnswering``, ``Refused`` (``MachineNotRunning``)."""
        return await self.monitor.execute(command, arguments)

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
        await self._keep(replace(self.record, pinning=pinning))

    # -- for plugging -------------------------------------------------------------------------------------------
    @property
    def groups(self) -> VfioGroups:
        return self._around.groups

    def account(self) -> Account:
        """Who QEMU runs as. Raises ``Refused`` (``UserMissing``)."""
        return self._around.account()

    async def keep_devices(self, devices: tuple[Device, ...]) -> None:
        """Write them into the launch record. Raises ``OSError``; then the record is as before."""
        await self._keep(replace(self.record, devices=devices))

    # -- for the hypervisor, beside ``monitor`` -----------------------------------------------------------------
    async def settle(self) -> None:
        """Undo what an earlier daemon was in the middle of."""
        status = (await self.execute("query-status"))["status"]
        if status == "inmigrate":
            # A restore that never got its state: the saved state is still there.
            self.record = self.record.with_ending(TerminationReason.HOST_REQUEST.value, "the restore was interrupted")
            if self._qemu is not None:
                await self._qemu.kill()
            self.monitor.set_state(MachineState.ENDED, "ended")
        elif self.record.ending is None and (await self.execute("query-migrate")).get("status") is not None:
            # A suspend that did not come to its end. Whoever wanted it asks again.
            await savedstate.undo(self)
        if self.state is not MachineState.ENDED:
            await holding.hold(self)
            await self._settle_devices()
        await self.monitor.look_for_panic()

    async def let_go(self) -> None:
        """The daemon ends, the VM does not."""
        await self.monitor.detach()
        for process in self._processes():
            await process.let_go()

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

    async def _keep(self, record: LaunchRecord) -> None:
        await asyncio.to_thread(record.save, self.paths.launch_record)
        self.record = record

    def _changed(self, what: str) -> None:
        self._around.changed(self.record.uid, what)

    def _names(self, kind: DeviceKind) -> list[str]:
        return [device.name for device in self.record.devices or () if device.kind is kind and device.plugged]

    def _processes(self) -> list[Running]:
        return [*([self._qemu] if self._qemu is not None else []), *self._helpers]

    async def _agent_listens(self) -> bool:
        """Whether the guest's side of the channel is open: nobody waits for an agent that is not there."""
        if self.state is not MachineState.RUNNING:
            return False
        channels = await self.execute("query-chardev")
        return any(channel["label"] == "agent0" and channel["frontend-open"] for channel in channels)

    async def _end(self, reason: TerminationReason | None, message: str) -> Termination:
        """End what still runs and remove what the run left. Done twice, it says the same as far as it still can."""
        state, around = self.state, self._around
        if reason is not None and state is not MachineState.ENDED:
            self.record = self.record.with_ending(reason.value, message)
            await asyncio.to_thread(self.record.save, self.paths.launch_record)
        if self._qemu is not None and not self._qemu.ended:
            await self._end_qemu(self._qemu)
        await end_all(self._helpers)
        await self.monitor.disconnect()
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
            guest_reason=self.monitor.guest_reason,
        )
        await asyncio.to_thread(self._remove)
        self.monitor.set_state(MachineState.ENDED, "collected")
        await around.gone(self.record.uid)
        return result

    async def _end_qemu(self, qemu: Running) -> None:
        """Ask first, so that images are closed cleanly."""
        if await self.monitor.quit(seconds=_QUIT_SECONDS):
            await qemu.wait_for(_QUIT_SECONDS)
        if not qemu.ended:
            await qemu.kill()
        if not qemu.ended:
            raise QEMUNotAnswering(
                f"QEMU (pid {qemu.process.pid}) cannot be ended",
                hint="it hangs in the host's kernel, most often for a disk that does not answer",
            )

    def _remove(self) -> None:
        self._around.groups.take_back(self.record.functions)
        remove_runtime(self.paths)
        self.paths.launch_record.unlink(missing_ok=True)
        if self.paths.state.is_dir():
            sync_directory(self.paths.state)

    def _left(self, device: str) -> None:
        """The guest took its time to let go of it, or let go of it by itself."""
        if any(one.id == device for one in self.record.devices or ()):
            self.monitor.background(self._settle_devices())

    async def _settle_devices(self) -> None:
        try:
            await self._alone(plugged.settle(self))
        except CarmelError as exc:
            _log.warning("what is plugged into the VM %s is not known: %s", self.record.uid, exc.message)
        self._changed("devices")
