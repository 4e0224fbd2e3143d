"""A hypervisor that behaves, in memory: VMs start, run, end and are found again by the next one on the same ``World``.

What it promises is what ``hypervisor.machine`` promises: a start is all or nothing, an end is told and kept until it is
collected, nothing runs twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from carmel.errors import CarmelError, Refused, Unavailable
from carmel.hypervisor import guestmemory
from carmel.hypervisor.config import Accelerator, AnyDisk, FunctionDiskConfig, MachineConfig, NicConfig, Pinning
from carmel.hypervisor.devices import DeviceKind
from carmel.hypervisor.machine import ConsoleStream, Launch, MachineChange, MachineState
from carmel.hypervisor.pinning.failures import CannotPin
from carmel.hypervisor.pinning.holding import check_pinning
from carmel.hypervisor.slots import hot_plug_ports
from carmel.paths import Paths
from carmel.resources.virtualmachine import DiskBus, GuestStatus, Termination, TerminationReason

_LIVE = (MachineState.RUNNING, MachineState.PAUSED)


@dataclass
class World:
    """What is there whether or not a daemon is: processes and records."""

    paths: Paths
    now: Callable[[], datetime]
    machines: dict[str, FakeMachine] = field(default_factory=dict)
    launches: list[MachineConfig] = field(default_factory=list)
    """Every start that ever was."""
    no_dedicated: str | None = None
    """Why this host has no cpusets; ``None``: it has."""

    def require_cpusets(self, *, needed: bool) -> None:
        if needed and self.no_dedicated is not None:
            raise CannotPin(self.no_dedicated)


class FakeMachine:
    """Fulfils ``machine.Machine``. The test plays the guest: ``end``, ``obeys_button``, ``told``."""

    def __init__(self, world: World, config: MachineConfig, number: int, *, paused: bool) -> None:
        self.config = config
        self.obeys_button = True
        self.blockers: Sequence[str] = ()
        self.told: GuestStatus | None = None
        self.addresses: dict[str, list[str]] = {}
        self.presses = 0
        self.moves: list[Pinning] = []
        self.lets_go = True
        """Whether the guest gives devices back."""
        self.refuses_plug: CarmelError | None = None
        self.listeners: list[Callable[[str, str], None]] = []
        # A process has copies of its own of what it was given.
        self._descriptors = {nic.name: [os.dup(one) for one in nic.descriptors] for nic in config.nics}
        self.plugged: dict[tuple[DeviceKind, str], NicConfig | AnyDisk] = {}
        """What was plugged since the start."""
        self._there = [
            *((DeviceKind.NIC, nic.name) for nic in config.nics),
            *((DeviceKind.DISK, disk.name) for disk in config.disks),
        ]
        self._as_started = tuple(self._there)
        self._world = world
        self._state = MachineState.PAUSED if paused else MachineState.RUNNING
        self._launch = Launch(
            f"launch-{number}", config.uid, 1000 + number, "virt-7.2", Accelerator.TCG, "cortex-a57", world.now()
        )

    @property
    def launch(self) -> Launch:
        return self._launch

    @property
    def state(self) -> MachineState:
        return self._state

    @property
    def pinning(self) -> Pinning | None:
        return self.moves[-1] if self.moves else self.config.pinning

    def close(self) -> None:
        """What a process does at its end, and a test at its own."""
        for name in list(self._descriptors):
            self._close(name)

    @property
    def nics(self) -> Sequence[str]:
        return [name for kind, name in self._there if kind is DeviceKind.NIC]

    @property
    def disks(self) -> Sequence[str]:
        return [name for kind, name in self._there if kind is DeviceKind.DISK]

    async def plug_nic(self, nic: NicConfig) -> None:
        self._plug(DeviceKind.NIC, nic, pluggable=nic.helper is None)
        self._descriptors[nic.name] = [os.dup(one) for one in nic.descriptors]

    async def unplug_nic(self, name: str) -> None:
        alone = {nic.name for nic in self.config.nics if self.config.iommu or nic.function is not None}
        self._unplug(DeviceKind.NIC, name, alone)
        self._close(name)

    async def plug_disk(self, disk: AnyDisk) -> None:
        on_pci = isinstance(disk, FunctionDiskConfig) or disk.bus in (DiskBus.VIRTIO, DiskBus.NVME)
        self._plug(DeviceKind.DISK, disk, pluggable=on_pci)

    async def unplug_disk(self, name: str) -> None:
        alone = {disk.name for disk in self.config.disks if isinstance(disk, FunctionDiskConfig)}
        self._unplug(DeviceKind.DISK, name, alone)

    def end(self, state: MachineState) -> None:
        """The guest shut down or panicked, or QEMU died."""
        self._set(state)

    async def resume(self) -> None:
        self._require_live()
        self._set(MachineState.RUNNING)

    async def pause(self) -> None:
        self._require_live()
        self._set(MachineState.PAUSED)

    async def request_shutdown(self) -> None:
        self._require_live()
        self.presses += 1
        if self.obeys_button and self._state is MachineState.RUNNING:
            self._set(MachineState.SHUTDOWN)

    async def reset(self) -> None:
        self._require_live()

    async def kill(self, reason: str) -> Termination:
        return self._gone(TerminationReason.HOST_REQUEST, reason)

    async def suspend(self) -> None:
        self._require_live()
        if tuple(self._there) != self._as_started:
            raise Refused("it has other devices than at its start", code="DevicesPlugged")
        if self.blockers:
            raise Refused(self.blockers[0], code="NonMigratableDevice")
        saved = self._world.paths.machine(self.config.uid).saved_state
        saved.parent.mkdir(parents=True, exist_ok=True)
        saved.write_bytes(b"memory")
        self._gone(TerminationReason.HOST_REQUEST, "suspended")

    async def collect(self) -> Termination:
        if self._state in _LIVE:
            raise Refused("it still runs", code="MachineRunning")
        reason = {
            MachineState.SHUTDOWN: TerminationReason.GUEST_SHUTDOWN,
            MachineState.PANICKED: TerminationReason.GUEST_PANIC,
        }.get(self._state, TerminationReason.QEMU_FAILED)
        return self._gone(reason, "")

    async def repin(self, pinning: Pinning) -> None:
        before = self.pinning
        self._require_live()
        check_pinning(pinning, self.config.cpu.count)
        elsewhere = before is not None and pinning.memory_nodes != before.memory_nodes
        if before is not None and len(pinning.memory_nodes) not in (1, len(before.memory_nodes)):
            raise CannotPin("its memory cannot be spread")
        self._world.require_cpusets(needed=pinning.exclusive or elsewhere)
        self.moves.append(pinning)

    async def migration_blockers(self) -> Sequence[str]:
        return self.blockers

    async def guest(self) -> GuestStatus | None:
        return self.told

    async def guest_addresses(self) -> dict[str, list[str]]:
        return self.addresses

    def _close(self, nic: str) -> None:
        for descriptor in self._descriptors.pop(nic, ()):
            os.close(descriptor)

    def _plug(self, kind: DeviceKind, what: NicConfig | AnyDisk, *, pluggable: bool) -> None:
        self._require_live()
        if not pluggable:
            raise Refused("it can be there from the start only", code="NotPluggable")
        if (kind, what.name) in self._there:
            raise Refused("it is there already", code="AlreadyPlugged")
        if len(self.plugged) == hot_plug_ports(iommu=self.config.iommu):
            raise Refused("every port is taken", code="NoFreePort")
        if self.refuses_plug is not None:
            raise self.refuses_plug
        self.plugged[kind, what.name] = what
        self._there.append((kind, what.name))

    def _unplug(self, kind: DeviceKind, name: str, alone: Collection[str]) -> None:
        """``alone``: those of the start that have a port of their own."""
        self._require_live()
        if (kind, name) not in self._there:
            return
        if (kind, name) not in self.plugged and name not in alone:
            raise Refused("it is there since the start", code="NotPluggable")
        if self._state is not MachineState.RUNNING:
            raise Unavailable("the guest stands still", code="GuestStandsStill")
        if not self.lets_go:
            raise Unavailable("the guest keeps it", code="GuestKeepsDevice")
        self.plugged.pop((kind, name), None)
        self._there.remove((kind, name))

    def tell(self, what: str) -> None:
        for listener in self.listeners:
            listener(self.config.uid, what)

    def _set(self, state: MachineState) -> None:
        self._state = state
        self.tell(state.value)

    def _require_live(self) -> None:
        if self._state not in _LIVE:
            raise Refused("it does not run", code="MachineNotRunning")

    def _gone(self, reason: TerminationReason, message: str) -> Termination:
        self._world.machines.pop(self.config.uid, None)
        self.close()
        self._set(MachineState.ENDED)
        return Termination(
            reason=reason,
            message=message,
            launch_id=self._launch.launch_id,
            started_at=self._launch.started_at,
            finished_at=self._world.now(),
        )


class FakeHypervisor:
    """Fulfils ``machine.Hypervisor``. ``failure`` is raised by the next start."""

    def __init__(self, world: World) -> None:
        self.failure: CarmelError | None = None
        self._world = world
        self._known: set[str] = set()
        self._queues: list[asyncio.Queue[MachineChange]] = []

    async def launch(self, config: MachineConfig, *, paused: bool = False, restore: bool = False) -> FakeMachine:
        if config.uid in self._world.machines:
            raise Refused("it runs already", code="MachineRunning")
        guestmemory.check(config)
        if config.pinning is not None:
            check_pinning(config.pinning, config.cpu.count)
            self._world.require_cpusets(needed=config.pinning.exclusive)
        if self.failure is not None:
            # A real one tells of the process that it started and that ended.
            self._tell(config.uid, "ended")
            raise self.failure
        saved = self._world.paths.machine(config.uid).saved_state
        if restore and not saved.exists():
            raise Refused("there is no saved state", code="NoSavedState")
        self._world.launches.append(config)
        machine = FakeMachine(self._world, config, len(self._world.launches), paused=paused)
        self._world.machines[config.uid] = machine
        self._take(machine)
        if restore:
            saved.unlink()
        self._tell(config.uid, "launched")
        return machine

    async def adopt(self) -> Sequence[FakeMachine]:
        machines = list(self._world.machines.values())
        for machine in machines:
            self._take(machine)
        return machines

    def machine(self, uid: str) -> FakeMachine | None:
        return self._world.machines.get(uid) if uid in self._known else None

    @asynccontextmanager
    async def changes(self) -> AsyncIterator[AsyncIterator[MachineChange]]:
        queue: asyncio.Queue[MachineChange] = asyncio.Queue()
        self._queues.append(queue)

        async def told() -> AsyncIterator[MachineChange]:
            while True:
                yield await queue.get()

        try:
            yield told()
        finally:
            self._queues.remove(queue)

    async def open_console(self, uid: str) -> ConsoleStream:
        raise Refused("there is no console here", code="MachineNotRunning")

    def serial_log(self, uid: str) -> Sequence[Path]:
        return []

    async def forget(self, uid: str) -> None:
        if uid in self._world.machines:
            raise Refused("it runs", code="MachineRunning")
        paths = self._world.paths.machine(uid)
        for file in paths.state.glob("*"):
            file.unlink()
        with contextlib.suppress(FileNotFoundError):
            paths.state.rmdir()

    async def close(self) -> None:
        for machine in self._world.machines.values():
            machine.listeners.clear()

    def _take(self, machine: FakeMachine) -> None:
        self._known.add(machine.config.uid)
        machine.listeners.append(self._tell)

    def _tell(self, uid: str, what: str) -> None:
        for queue in self._queues:
            queue.put_nowait(MachineChange(uid, what))
