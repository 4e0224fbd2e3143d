"""The controller of VMs on a real store and a hypervisor in memory; daemons come and go on the same world."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest

from carmel.controllers.runtime import Key, find_condition
from carmel.errors import Refused
from carmel.hypervisor.config import DiskConfig
from carmel.hypervisor.machine import MachineState
from carmel.resources.base import ObjectMeta
from carmel.resources.virtualmachine import (
    GuestStatus,
    PowerState,
    TerminationReason,
)
from carmel.resources.volume import Volume, VolumeSpec
from tests.unit.controllers.virtualmachine.hosts import KEY, Host, message, power, reason


async def test_vm_is_started_and_says_so(host: Host) -> None:
    await host.create()
    vm = await host.until(reason("Running"))
    assert vm.status.launch_id == host.machine.launch.launch_id
    assert vm.metadata.finalizers == ["carmel.dev/virtualmachine"]
    assert vm.metadata.labels == {"carmel.dev/host": "host"}


async def test_descriptors_are_qemus_and_nics_go_with_the_run(host: Host) -> None:
    await host.make_network()
    vm = await host.create(networks=[{"name": "eth0"}])
    await host.until(reason("Running"))
    assert len(host.nics.opened) == 1
    assert not host.nics.open
    assert host.nics.given == {vm.metadata.uid}
    await host.set(powerState="PoweredOff")
    await host.until(reason("PoweredOff"))
    assert not host.nics.given


async def test_nics_of_a_failed_start_are_taken_back(host: Host) -> None:
    host.hypervisor.failure = Refused("QEMU does not want to", code="QEMUFailed")
    await host.make_network()
    await host.create(networks=[{"name": "eth0"}])
    await host.until(reason("QEMUFailed"))
    assert len(host.nics.opened) == 1
    assert not host.nics.open
    assert not host.nics.given


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
    (disk,) = host.machine.config.disks
    assert isinstance(disk, DiskConfig)
    assert disk.path.name == f"{volume.metadata.uid}.qcow2"
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
            # A start that was cut off before its record was written counts as one that failed, and is waited with.
            await host.clock.advance(10)
