"""Disks that come and go while their VM runs."""

from __future__ import annotations

from typing import Any

import pytest

from carmel.controllers.runtime import find_condition
from carmel.controllers.virtualmachine.observing import TRY_AGAIN_SECONDS
from carmel.errors import Refused
from carmel.hypervisor.config import DiskConfig
from carmel.resources.core import EVENT
from carmel.resources.virtualmachine import DiskBus, VirtualMachine
from tests.unit.controllers.virtualmachine.hosts import KEY, Host, reason

FIRST = {"name": "root", "size": "1Gi"}
SECOND = {"name": "data", "size": "1Gi"}


@pytest.fixture
async def running(host: Host) -> Host:
    """A host with a VM that runs, with one disk."""
    await host.create(disks=[FIRST])
    await host.ready_volume("w-root")
    await host.until(reason("Running"))
    await host.quiet()
    return host


def said(vm: VirtualMachine, type_: str) -> str:
    found = find_condition(vm.status, type_)
    return found.message if found is not None else ""


async def set_disks(host: Host, *disks: dict[str, Any]) -> VirtualMachine:
    await host.set(disks=list(disks))
    await host.quiet()
    return await host.vms.get(KEY)


async def held(host: Host) -> dict[str, str | None]:
    return {volume.metadata.name: volume.status.used_by for volume in await host.volumes.list()}


async def plug_second(host: Host) -> VirtualMachine:
    await set_disks(host, FIRST, SECOND)
    await host.ready_volume("w-data")
    await host.quiet()
    return await host.vms.get(KEY)


async def test_one_more_comes_when_its_volume_is_ready(running: Host) -> None:
    vm = await set_disks(running, FIRST, SECOND)
    assert running.machine.disks == ["root"]
    assert "w-data" in said(vm, "DisksPlugged")
    assert reason("Running")(vm)
    await running.ready_volume("w-data")
    await running.quiet()
    vm = await running.vms.get(KEY)
    assert running.machine.disks == ["root", "data"]
    assert (said(vm, "RestartRequired"), said(vm, "DisksPlugged")) == ("", "")
    assert await held(running) == {"w-root": "w", "w-data": "w"}
    assert len(running.world.launches) == 1


async def test_one_that_goes_lets_go_of_its_volume(running: Host) -> None:
    await plug_second(running)
    vm = await set_disks(running, FIRST)
    assert running.machine.disks == ["root"]
    assert (said(vm, "RestartRequired"), said(vm, "DisksPlugged")) == ("", "")
    assert [disk.name for disk in vm.status.disks or []] == ["root"]
    assert await held(running) == {"w-root": "w", "w-data": None}


async def test_a_disk_of_the_start_stays_until_the_next_and_keeps_its_volume(running: Host) -> None:
    vm = await set_disks(running)
    assert running.machine.disks == ["root"]
    assert "spec.disks changed" in said(vm, "RestartRequired")
    assert "since the start" in said(vm, "DisksPlugged")
    assert await held(running) == {"w-root": "w"}
    assert reason("Running")(vm)
    vm = await set_disks(running, FIRST)
    assert (said(vm, "RestartRequired"), said(vm, "DisksPlugged")) == ("", "")


async def test_a_guest_that_keeps_a_disk_is_asked_again(running: Host) -> None:
    await plug_second(running)
    running.machine.lets_go = False
    vm = await set_disks(running, FIRST)
    assert "the guest keeps it" in said(vm, "DisksPlugged")
    assert said(vm, "RestartRequired") == ""
    assert await held(running) == {"w-root": "w", "w-data": "w"}
    running.machine.lets_go = True
    await running.clock.advance(TRY_AGAIN_SECONDS + 1)
    await running.quiet()
    assert running.machine.disks == ["root"]
    assert await held(running) == {"w-root": "w", "w-data": None}


async def test_a_plug_that_is_refused_is_tried_when_something_else_is_wished(running: Host) -> None:
    running.machine.refuses_plug = Refused("not with this one", code="Odd")
    vm = await plug_second(running)
    assert "not with this one" in said(vm, "DisksPlugged")
    assert "spec.disks changed" in said(vm, "RestartRequired")
    running.machine.refuses_plug = None
    await running.clock.advance(10 * TRY_AGAIN_SECONDS)
    await running.quiet()
    assert running.machine.disks == ["root"]
    vm = await set_disks(running, FIRST, {**SECOND, "bus": "nvme"})
    assert running.machine.disks == ["root", "data"]
    assert (said(vm, "RestartRequired"), said(vm, "DisksPlugged")) == ("", "")
    warnings = [one.json()["reason"] for one in (await running.store.list(EVENT)).items]
    assert sorted(one for one in warnings if one.startswith("Disk")) == ["DiskNotPlugged", "DiskPlugged"]


async def test_another_daemon_goes_on_with_what_is_plugged(running: Host) -> None:
    await plug_second(running)
    await running.restart()
    await running.quiet()
    vm = await running.vms.get(KEY)
    assert running.machine.disks == ["root", "data"]
    assert (said(vm, "RestartRequired"), said(vm, "DisksPlugged")) == ("", "")
    await set_disks(running, FIRST)
    assert running.machine.disks == ["root"]


async def test_a_plug_that_a_daemon_died_in_is_done_by_the_next(running: Host) -> None:
    """It had written the disk down, and QEMU has it not; or QEMU has it, and it is wished no more."""
    await running.machine.plug_disk(DiskConfig("lost", DiskBus.VIRTIO, running.world.paths.state, "qcow2", "lost"))
    await running.restart()
    await running.quiet()
    assert running.machine.disks == ["root"]


async def test_a_change_of_a_disk_counts_from_the_next_start(running: Host) -> None:
    vm = await set_disks(running, {**FIRST, "bus": "scsi"})
    assert "spec.disks changed" in said(vm, "RestartRequired")
    assert running.machine.disks == ["root"]
    vm = await set_disks(running, {**FIRST, "deletePolicy": "Retain"})
    assert said(vm, "RestartRequired") == ""
