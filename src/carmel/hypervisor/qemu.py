"""The hypervisor: starts VMs in QEMU processes, and finds those that an earlier daemon started."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from carmel.cancellation import end_tasks
from carmel.errors import CarmelError, Refused
from carmel.hardware.model import Kvm
from carmel.hypervisor import logs
from carmel.hypervisor.abilities import find_abilities
from carmel.hypervisor.accelerator import HostSystem, choose_accelerator
from carmel.hypervisor.account import DEFAULT_USER, Account
from carmel.hypervisor.adoption import Adoption
from carmel.hypervisor.arch import architecture
from carmel.hypervisor.changes import Changes
from carmel.hypervisor.commandline import Platform
from carmel.hypervisor.config import MachineConfig
from carmel.hypervisor.console import ConsoleClient, ConsoleHub
from carmel.hypervisor.directory import remove_all
from carmel.hypervisor.failures import not_running
from carmel.hypervisor.firmware import find_firmware
from carmel.hypervisor.launching import Launching
from carmel.hypervisor.machine import MachineChange, MachineState
from carmel.hypervisor.passthrough import VfioGroups
from carmel.hypervisor.pinning import Pinner
from carmel.hypervisor.processes import ProcessTable, process_table
from carmel.hypervisor.qemu_machine import QemuMachine, Surroundings
from carmel.paths import Paths
from carmel.run import Runner, find_program

_log = logging.getLogger(__name__)
_LOOK_SECONDS = 5.0


class QemuHypervisor:
    """Fulfils ``machine.Hypervisor``.

    ``binary``: another QEMU than the installed one. ``user``: the account that QEMU runs as if we are root. ``kvm``:
    what this host's KVM offers; without it no guest under KVM can nest or name its GIC.
    """

    def __init__(
        self,
        paths: Paths,
        runner: Runner,
        *,
        guest_architecture: str = "aarch64",
        binary: Path | None = None,
        user: str = DEFAULT_USER,
        table: ProcessTable | None = None,
        kvm: Kvm | None = None,
        groups: VfioGroups | None = None,
    ) -> None:
        self._paths = paths
        self._runner = runner
        self._architecture = guest_architecture
        self._binary = binary
        self._user = user
        self._table = table or process_table()
        self._kvm = kvm or Kvm(present=False)
        self._groups = groups or VfioGroups()
        self._changes = Changes()
        self._machines: dict[str, QemuMachine] = {}
        self._hubs: dict[str, ConsoleHub] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._platforms: dict[tuple[Path, int], Platform] = {}
        self._looking: asyncio.Task[None] | None = None
        self._pinner: asyncio.Future[Pinner] | None = None

    async def platform(self) -> Platform:
        """What VMs run on. Asked anew when QEMU's file changed (an upgrade).

        Raises ``Refused`` (``ProgramMissing``), ``QEMUTooOld`` or ``QEMUFailed``.
        """
        binary = self._binary or find_program(f"qemu-system-{self._architecture}")
        with contextlib.suppress(OSError):
            if binary is not None:
                key = (binary, binary.stat().st_mtime_ns)
                if key in self._platforms:
                    return self._platforms[key]
        qemu = await find_abilities(self._architecture, self._paths, self._runner, binary)
        strategy = architecture(self._architecture)
        host = HostSystem.detect()
        choice = choose_accelerator(qemu, host)
        firmware = await asyncio.to_thread(find_firmware, qemu.target, strategy.machine_type(qemu))
        platform = Platform(strategy, qemu, choice.accelerator, firmware, self._kvm, host.cpus)
        # Firmware may be installed while we run; a QEMU that is there stays.
        if firmware is not None:
            self._platforms = {(qemu.binary, qemu.binary.stat().st_mtime_ns): platform}
        return platform

    async def launch(self, config: MachineConfig, *, paused: bool = False, restore: bool = False) -> QemuMachine:
        starting = asyncio.create_task(self._launch(config, paused=paused, restore=restore))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # All or nothing: let it come to its end, then take it back.
            with contextlib.suppress(Exception):
                await (await starting).kill("the start was cancelled")
            raise

    async def adopt(self) -> Sequence[QemuMachine]:
        pinner = await self._find_pinner()
        adoption = Adoption(self._paths, self._table, pinner, lambda uid: self._surroundings(uid, pinner))
        machines = await adoption.run()
        self._machines.update({machine.record.uid: machine for machine in machines})
        for machine in machines:
            self._changes.tell(machine.record.uid, "adopted")
        self._start_looking()
        return machines

    def machine(self, uid: str) -> QemuMachine | None:
        return self._machines.get(uid)

    def changes(self) -> AbstractAsyncContextManager[AsyncIterator[MachineChange]]:
        return self._changes.listen()

    async def open_console(self, uid: str) -> ConsoleClient:
        machine = self._machines.get(uid)
        if machine is None or machine.state is MachineState.ENDED:
            raise not_running(uid)
        hub = self._hubs.setdefault(uid, ConsoleHub(machine.paths.serial_socket))
        return await hub.attach(machine.paths.serial_log)

    def serial_log(self, uid: str) -> Sequence[Path]:
        paths = self._paths.machine(uid)
        return [path for path in (paths.serial_log_older, paths.serial_log) if path.exists()]

    async def forget(self, uid: str) -> None:
        async with self._lock(uid):
            if uid in self._machines:
                raise Refused(f"the VM {uid} runs, or was not collected", code="MachineRunning")
            await asyncio.to_thread(remove_all, self._paths.machine(uid))
        self._locks.pop(uid, None)

    async def close(self) -> None:
        await end_tasks(self._looking)
        for hub in list(self._hubs.values()):
            await hub.close()
        for machine in list(self._machines.values()):
            await machine.let_go()
        self._machines.clear()

    # -- within -------------------------------------------------------------------------------------------------
    async def _launch(self, config: MachineConfig, *, paused: bool, restore: bool) -> QemuMachine:
        async with self._lock(config.uid):
            paths = self._paths.machine(config.uid)
            if config.uid in self._machines or await asyncio.to_thread(paths.launch_record.exists):
                raise Refused(f"the VM {config.name} runs already", code="MachineRunning")
            launching = Launching(
                config=config,
                platform=await self.platform(),
                around=self._surroundings(config.uid, await self._find_pinner()),
                runner=self._runner,
                account=Account.for_daemon(self._user),
                paused=paused,
                restore=restore,
            )
            machine = await launching.run()
            self._machines[config.uid] = machine
            self._start_looking()
        self._changes.tell(config.uid, "launched")
        return machine

    async def _find_pinner(self) -> Pinner:
        if self._pinner is None:
            self._pinner = asyncio.ensure_future(Pinner.find(self._paths, self._runner))
        return await asyncio.shield(self._pinner)

    def _surroundings(self, uid: str, pinner: Pinner) -> Surroundings:
        return Surroundings(
            paths=self._paths.machine(uid),
            table=self._table,
            changed=self._changes.tell,
            gone=self._gone,
            pinner=pinner,
            groups=self._groups,
            account=lambda: Account.for_daemon(self._user),
        )

    async def _gone(self, uid: str) -> None:
        self._machines.pop(uid, None)
        hub = self._hubs.pop(uid, None)
        if hub is not None:
            await hub.finish()

    def _lock(self, uid: str) -> asyncio.Lock:
        return self._locks.setdefault(uid, asyncio.Lock())

    def _start_looking(self) -> None:
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_after_logs())

    async def _look_after_logs(self) -> None:
        while True:
            for machine in list(self._machines.values()):
                try:
                    await machine.monitor.look_for_panic()
                    await asyncio.to_thread(_cap, machine)
                except (OSError, CarmelError) as exc:
                    _log.warning("the logs of %s cannot be looked after: %s", machine.record.uid, exc)
            await asyncio.sleep(_LOOK_SECONDS)


def _cap(machine: QemuMachine) -> None:
    paths = machine.paths
    logs.cap(paths.serial_log, paths.serial_log_older, logs.SERIAL_LOG_BYTES)
    logs.cap(paths.qemu_log, None, logs.QEMU_LOG_BYTES)
