"""The controller of VMs on a real store and a hypervisor in memory; daemons come and go on the same world."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from carmel.controllers.placement import Ledger, Means, Mover, Places, make_ground, plain_hardware
from carmel.controllers.runtime import Key, Runtime, find_condition
from carmel.controllers.virtualmachine import (
    Dependencies,
    HostLimits,
    LaunchedSpecs,
    VirtualMachineController,
    ports,
)
from carmel.errors import Refused
from carmel.hypervisor.machine import MachineState
from carmel.paths import MachinePaths, Paths
from carmel.resources.base import ObjectMeta
from carmel.resources.host import HostPlacementSpec
from carmel.resources.image import Image
from carmel.resources.network import Network
from carmel.resources.virtualmachine import (
    VIRTUAL_MACHINE,
    GuestStatus,
    NetworkInterface,
    NetworkInterfaceStatus,
    PowerState,
    TerminationReason,
    VirtualMachine,
    VirtualMachineSpec,
)
from carmel.resources.volume import VOLUME, Volume, VolumePhase, VolumeSpec
from carmel.store.protocol import EventType
from carmel.store.sqlite import SqliteStore
from tests.fakes.clock import FakeClock
from tests.fakes.hypervisor import FakeHypervisor, FakeMachine, World
from tests.fakes.quiet import quiet
from tests.stores import open_store

KEY = Key("default", "w")
GROUND = make_ground(plain_hardware("aarch64", 4096, 4, 2**40), HostPlacementSpec(), Means(), None)


class FakeDisks:
    async def volume(self, volume: Volume) -> Path:
        return Path("/volumes") / f"{volume.metadata.uid}.qcow2"

    async def kernel(self, image: Image) -> ports.KernelFiles:
        raise Refused("no kernels here")


class NoNics:
    async def plan(
        self,
        uid: str,
        host_name: str,
        wanted: Sequence[tuple[NetworkInterface, Network]],
        before: Sequence[NetworkInterfaceStatus],
        paths: MachinePaths,
    ) -> Sequence[ports.NicPlan]:
        return []


class NoSeeds:
    async def write(self, seed: ports.Seed, destination: Path) -> None:
        await asyncio.to_thread(destination.write_bytes, b"seed")


class Host:
    """One daemon's part that matters here, on a world that outlives it."""

    def __init__(self, store: SqliteStore, world: World, clock: FakeClock) -> None:
        self.store, self.world, self.clock = store, world, clock
        self._open()

    def _open(self) -> None:
        self.runtime = Runtime(self.store, "host", clock=self.clock, rng=random.Random(1))
        self.hypervisor = FakeHypervisor(self.world)
        self.vms = self.runtime.resources(VIRTUAL_MACHINE, VirtualMachine)
        self.volumes = self.runtime.resources(VOLUME, Volume)
        launched = LaunchedSpecs(self.world.paths)
        self.ledger = Ledger(GROUND)
        self.mover = Mover(self.ledger, self.hypervisor, launched)
        self.controller = VirtualMachineController(
            self.runtime,
            Dependencies(
                hypervisor=self.hypervisor,
                disks=FakeDisks(),
                nics=NoNics(),
                seeds=NoSeeds(),
                paths=self.world.paths,
                boot_id="boot",
                launched=launched,
                places=Places(self.ledger, self.mover, self.hypervisor),
                limits=lambda: HostLimits(8, 2**40),
            ),
        )

    async def start(self) -> None:
        await self.hypervisor.adopt()
        await self.controller.restore_places()
        await self.runtime.start()
        await self.controller.start()

    async def stop(self) -> None:
        await self.controller.stop()
        await self.runtime.stop(1)
        await self.hypervisor.close()

    async def restart(self) -> None:
        await self.stop()
        self._open()
        await self.start()

    async def quiet(self) -> None:
        await quiet(self.runtime, self.store)

    async def create(self, name: str = "w", **spec: Any) -> VirtualMachine:
        return await self.vms.create(
            VirtualMachine(
                metadata=ObjectMeta(name=name, namespace="default"), spec=VirtualMachineSpec.model_validate(spec)
            )
        )

    async def set(self, **spec: Any) -> None:
        def change(one: VirtualMachine) -> None:
            one.spec = VirtualMachineSpec.model_validate({**one.spec.model_dump(by_alias=True), **spec})

        await self.vms.update(await self.vms.get(KEY), change)

    async def until(self, holds: Callable[[VirtualMachine], bool], key: Key = KEY) -> VirtualMachine:
        """The VM, once it is so. Other tasks run meanwhile; time does not pass."""
        async with asyncio.timeout(5), self.store.watch(VIRTUAL_MACHINE, send_initial=True) as events:
            async for event in events:
                if event.object is not None and event.object.name == key.name:
                    found = self.vms.parse(event.object)
                    if event.type is not EventType.DELETED and holds(found):
                        return found
        raise AssertionError("the watch ended")

    async def until_gone(self, key: Key = KEY) -> None:
        async with asyncio.timeout(5), self.store.watch(VIRTUAL_MACHINE) as events:
            if await self.vms.find(key) is None:
                return
            async for event in events:
                if event.type is EventType.DELETED:
                    return

    async def ready_volume(self, name: str) -> Volume:
        """What the controller of volumes would do."""

        def ready(one: Volume) -> None:
            one.status.phase = VolumePhase.READY

        async with asyncio.timeout(5), self.store.watch(VOLUME, send_initial=True) as events:
            async for event in events:
                if event.object is not None and event.object.name == name:
                    return await self.volumes.update_status(self.volumes.parse(event.object), ready)
        raise AssertionError("the watch ended")

    @property
    def machine(self) -> FakeMachine:
        (machine,) = self.world.machines.values()
        return machine


def power(state: PowerState) -> Callable[[VirtualMachine], bool]:
    return lambda vm: vm.status.power_state is state


def reason(wanted: str) -> Callable[[VirtualMachine], bool]:
    def holds(vm: VirtualMachine) -> bool:
        found = find_condition(vm.status, "Ready")
        return found is not None and found.reason == wanted

    return holds


def message(vm: VirtualMachine) -> str:
    found = find_condition(vm.status, "Ready")
    assert found is not None
    return found.message


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    clock = FakeClock()
    paths = Paths(tmp_path / "s", tmp_path / "r", tmp_path / "c")
    async with open_store(tmp_path) as store:
        made = Host(store, World(paths, clock.now), clock)
        await made.start()
        yield made
        await made.stop()


async def test_vm_is_started_and_says_so(host: Host) -> None:
    await host.create()
    vm = await host.until(reason("Running"))
    assert vm.status.launch_id == host.machine.launch.launch_id
    assert vm.metadata.finalizers == ["carmel.dev/virtualmachine"]
    assert vm.metadata.labels == {"carmel.dev/host": "host"}


async def test_another_daemon_starts_nothing_twice(host: Host) -> None:
    await host.create()
    before = await host.until(reason("Running"))
    await host.restart()
    await host.clock.advance(60)
    after = await host.until(reason("Running"))
    assert len(host.world.launches) == 1
    assert after.status == before.status


async def test_disk_is_made_and_waited_for(host: Host) -> None:
    await host.create(disks=[{"name": "d", "size": "1Gi"}])
    waiting = await host.until(reason("WaitingForVolume"))
    assert "w-d" in message(waiting)
    volume = await host.ready_volume("w-d")
    await host.until(reason("Running"))
    assert host.machine.config.disks[0].path.name == f"{volume.metadata.uid}.qcow2"
    assert (await host.volumes.get(Key("default", "w-d"))).status.used_by == "w"


async def test_second_vm_waits_for_the_disk_of_the_first(host: Host) -> None:
    await host.volumes.create(
        Volume(metadata=ObjectMeta(name="data", namespace="default"), spec=VolumeSpec(size="1Gi"))
    )
    await host.ready_volume("data")
    disks = [{"name": "d", "volumeRef": {"name": "data"}}]
    await host.create(disks=disks)
    await host.until(reason("Running"))
    other = Key("default", "other")
    await host.create("other", disks=disks)
    await host.until(reason("VolumeInUse"), other)
    await host.set(powerOffMode="Hard")
    await host.vms.delete(await host.vms.get(KEY))
    await host.until(reason("Running"), other)
    assert len(host.world.machines) == 1


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (MachineState.SHUTDOWN, TerminationReason.GUEST_SHUTDOWN),
        (MachineState.PANICKED, TerminationReason.GUEST_PANIC),
        (MachineState.ENDED, TerminationReason.QEMU_FAILED),
    ],
)
@pytest.mark.parametrize("meanwhile", [False, True])
async def test_every_end_is_told(host: Host, state: MachineState, why: TerminationReason, meanwhile: bool) -> None:
    await host.create(restartPolicy="Never")
    launch_id = (await host.until(reason("Running"))).status.launch_id
    machine = host.machine
    if meanwhile:
        await host.stop()
        machine.end(state)
        host._open()
        await host.start()
    else:
        machine.end(state)
    vm = await host.until(reason(why.value))
    assert vm.status.last_termination is not None
    assert (vm.status.last_termination.reason, vm.status.last_termination.launch_id) == (why, launch_id)
    assert vm.status.power_state is PowerState.OFF
    assert len(host.world.launches) == 1


async def test_crash_loop(host: Host) -> None:
    await host.create()
    await host.until(reason("Running"))
    host.machine.end(MachineState.PANICKED)
    vm = await host.until(lambda one: reason("Running")(one) and one.status.restart_count == 1)
    host.machine.end(MachineState.PANICKED)
    await host.until(reason("CrashLoopBackOff"))
    await host.clock.advance(9)
    assert len(host.world.launches) == 2
    await host.clock.advance(2)
    vm = await host.until(lambda one: reason("Running")(one) and one.status.restart_count == 2)
    assert vm.status.launch_id == "launch-3"
    # Switched off and on by a person, it begins anew.
    await host.set(powerState="PoweredOff", powerOffMode="Hard")
    await host.until(reason("PoweredOff"))
    await host.set(powerState="PoweredOn")
    vm = await host.until(reason("Running"))
    assert vm.status.restart_count is None


async def test_failed_start_is_shown_and_tried_again_later(host: Host) -> None:
    host.hypervisor.failure = Refused("port 80 is taken", code="PortInUse", hint="choose another")
    await host.create()
    vm = await host.until(reason("PortInUse"))
    assert "Choose another." in message(vm)
    await host.quiet()
    host.hypervisor.failure = None
    await host.quiet()
    assert host.world.launches == []
    await host.clock.advance(61)
    await host.until(reason("Running"))


async def test_soft_power_off_presses_waits_and_pulls_the_plug(host: Host) -> None:
    await host.create()
    await host.until(reason("Running"))
    machine = host.machine
    machine.obeys_button = False
    await host.set(powerState="PoweredOff", powerOffTimeoutSeconds=25)
    await host.until(reason("Stopping"))
    for _ in range(24):
        await host.clock.advance(1)
        await host.quiet()
    assert machine.presses == 3
    assert host.world.machines
    await host.clock.advance(2)
    vm = await host.until(reason("PoweredOff"))
    assert vm.status.last_termination is not None
    assert vm.status.last_termination.reason is TerminationReason.HOST_REQUEST


async def test_suspend_and_resume_with_the_spec_it_was_suspended_with(host: Host) -> None:
    await host.create(memory={"size": "1Gi"})
    await host.until(reason("Running"))
    await host.set(powerState="Suspended")
    await host.until(power(PowerState.SUSPENDED))
    await host.set(memory={"size": "2Gi"})
    await host.restart()
    await host.set(powerState="PoweredOn")
    vm = await host.until(reason("Running"))
    assert host.machine.config.memory_bytes == 2**30
    assert find_condition(vm.status, "RestartRequired") is not None
    assert not host.world.paths.machine(vm.metadata.uid or "").saved_state.exists()


async def test_suspend_that_qemu_refuses_leaves_it_running(host: Host) -> None:
    await host.create()
    await host.until(reason("Running"))
    host.machine.blockers = ("nvme cannot be migrated",)
    await host.set(powerState="Suspended")
    vm = await host.until(reason("NonMigratableDevice"))
    assert vm.status.power_state is PowerState.ON
    assert host.machine.state is MachineState.RUNNING


async def test_deletion_removes_everything(host: Host) -> None:
    disks = [{"name": "a", "size": "1Gi"}, {"name": "b", "size": "1Gi", "deletePolicy": "Retain"}]
    await host.create(disks=disks, powerOffMode="Hard")
    await host.ready_volume("w-a")
    await host.ready_volume("w-b")
    vm = await host.until(reason("Running"))
    await host.vms.delete(vm)
    await host.until_gone()
    assert host.world.machines == {}
    assert not host.world.paths.machine(vm.metadata.uid or "").state.exists()
    assert await host.volumes.find(Key("default", "w-a")) is None
    kept = await host.volumes.get(Key("default", "w-b"))
    assert (kept.status.used_by, kept.metadata.owner_references) == (None, None)


async def test_guest_agent_is_asked_beside_the_passes(host: Host) -> None:
    await host.create()
    await host.until(reason("Running"))
    host.machine.told = GuestStatus(host_name="inside")
    host.machine.addresses = {"52:54:00:00:00:01": ["192.0.2.7"]}
    host.machine.tell("guest agent")
    await host.quiet()
    await host.clock.advance(1)
    vm = await host.until(lambda one: one.status.guest is not None)
    assert vm.status.addresses == ["192.0.2.7"]


@pytest.mark.parametrize("seed", range(8))
async def test_daemon_that_is_cut_off_anywhere(host: Host, seed: int) -> None:
    """Passes are cancelled at random awaits by a stop without grace; the end is the same, and nothing runs twice."""
    rng = random.Random(seed)
    await host.create(powerOffMode="Hard", disks=[{"name": "d", "size": "1Gi"}])
    await host.ready_volume("w-d")
    wanted = PowerState.ON
    for _ in range(12):
        wanted = rng.choice([PowerState.ON, PowerState.OFF, PowerState.PAUSED, PowerState.SUSPENDED])
        await host.set(powerState=wanted.value)
        for _ in range(rng.randrange(40)):
            await asyncio.sleep(0)
        await host.controller.stop()
        with contextlib.suppress(TimeoutError):
            await host.runtime.stop(0.0)
        await host.hypervisor.close()
        assert len(host.world.machines) <= 1
        host._open()
        await host.start()
    ends = {PowerState.SUSPENDED: {PowerState.SUSPENDED, PowerState.OFF}}.get(wanted, {wanted})
    running = 1 if wanted in {PowerState.ON, PowerState.PAUSED} else 0
    # The status alone may be of before the cut, and a VM that ends may leave it as it was: so both are looked at.
    async with asyncio.timeout(20):
        while len(host.world.machines) != running or (await host.vms.get(KEY)).status.power_state not in ends:
            await host.quiet()
