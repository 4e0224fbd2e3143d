"""NICs that come and go while their VM runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from carmel.controllers.runtime import find_condition
from carmel.errors import Refused, Unavailable
from carmel.network.host.kernel import Link
from carmel.paths import Paths
from carmel.resources.core import EVENT
from carmel.resources.network import NETWORK
from carmel.resources.virtualmachine import VirtualMachine
from tests.fakes.clock import FakeClock
from tests.fakes.dataplane import FakeDataPlane
from tests.fakes.hypervisor import World
from tests.stores import open_store
from tests.unit.controllers.virtualmachine.hosts import KEY, Host, reason

FIRST = {"name": "eth0", "networkRef": {"name": "inner"}}
SECOND = {"name": "eth1", "networkRef": {"name": "inner"}}


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    clock = FakeClock()
    paths = Paths(tmp_path / "s", tmp_path / "r", tmp_path / "c")
    async with open_store(tmp_path) as store:
        plane = FakeDataPlane(Link("lo", 1, loopback=True), now=clock.now)
        made = Host(store, World(paths, clock.now), clock, plane=plane)
        await made.start()
        spec = {"provider": "nat", "nat": {"subnet": "10.8.0.0/24"}}
        await store.create(NETWORK, {"metadata": {"name": "inner"}, "spec": spec})
        await made.create(networks=[FIRST])
        await made.until(reason("Running"))
        await made.quiet()
        yield made
        await made.stop()
        await plane.aclose()
        for machine in made.world.machines.values():
            machine.close()


async def settled(host: Host) -> VirtualMachine:
    await host.quiet()
    return await host.vms.get(KEY)


def said(vm: VirtualMachine, type_: str) -> str | None:
    found = find_condition(vm.status, type_)
    return found.message if found is not None else None


def attached(host: Host) -> set[str]:
    assert host.plane is not None
    return {port.nic for port in host.plane.ports.values()}


async def events(host: Host) -> list[str]:
    found = [one.json() for one in (await host.store.list(EVENT)).items]
    return sorted(one["reason"] for one in found if one["reason"].startswith("NIC"))


async def set_nics(host: Host, *nics: dict[str, Any]) -> VirtualMachine:
    await host.set(networks=list(nics))
    return await settled(host)


async def test_one_more_is_plugged_in(host: Host) -> None:
    vm = await set_nics(host, FIRST, SECOND)
    assert host.machine.nics == ["eth0", "eth1"]
    assert attached(host) == {"eth0", "eth1"}
    assert [nic.name for nic in vm.status.networks or []] == ["eth0", "eth1"]
    assert len(vm.status.addresses or []) == 2
    assert (said(vm, "RestartRequired"), said(vm, "NICsPlugged")) == (None, None)
    assert len(host.world.launches) == 1
    assert await events(host) == ["NICPlugged"]
    before = vm.metadata.resource_version
    await host.restart()
    after = await settled(host)
    assert after.metadata.resource_version == before
    assert attached(host) == {"eth0", "eth1"}


async def test_one_that_was_plugged_in_goes_again(host: Host) -> None:
    await set_nics(host, FIRST, SECOND)
    vm = await set_nics(host, FIRST)
    assert host.machine.nics == ["eth0"]
    assert attached(host) == {"eth0"}
    assert [port.spec.nic for port in await host.ports.list()] == ["eth0"]
    assert [nic.name for nic in vm.status.networks or []] == ["eth0"]
    assert said(vm, "RestartRequired") is None


async def test_one_of_the_start_stays_until_a_restart_and_keeps_its_port(host: Host) -> None:
    vm = await set_nics(host)
    assert host.machine.nics == ["eth0"]
    assert attached(host) == {"eth0"}
    assert said(vm, "RestartRequired") == "spec.networks changed since the VM was started: restart it for that to count"
    assert said(vm, "NICsPlugged") == "eth0: it is there since the start."
    assert len(await host.ports.list()) == 1
    await host.clock.advance(300)
    assert await events(host) == ["NICNotUnplugged"]
    # Wanted again, nothing is to be done.
    vm = await set_nics(host, FIRST)
    assert (said(vm, "RestartRequired"), said(vm, "NICsPlugged")) == (None, None)


async def test_one_that_waits_for_its_network_comes_when_that_does(host: Host) -> None:
    other = {"name": "eth1", "networkRef": {"name": "other"}}
    vm = await set_nics(host, FIRST, other)
    assert said(vm, "NICsPlugged") == "eth1: there is no Network other: make it"
    assert said(vm, "RestartRequired") is None
    ready = find_condition(vm.status, "Ready")
    assert ready is not None
    assert ready.status == "True"
    spec = {"provider": "nat", "nat": {"subnet": "10.9.0.0/24"}}
    await host.store.create(NETWORK, {"metadata": {"name": "other"}, "spec": spec})
    vm = await settled(host)
    assert said(vm, "NICsPlugged") is None
    assert attached(host) == {"eth0", "eth1"}


async def test_what_cannot_be_plugged_waits_for_a_restart_and_leaves_nothing(host: Host) -> None:
    host.machine.refuses_plug = Refused("there is no port free", code="NoFreePort")
    vm = await set_nics(host, FIRST, SECOND)
    assert said(vm, "NICsPlugged") == "eth1: there is no port free."
    assert said(vm, "RestartRequired") is not None
    assert attached(host) == {"eth0"}
    await host.clock.advance(300)
    assert await events(host) == ["NICNotPlugged"]
    await host.set(powerState="PoweredOff", powerOffMode="Hard")
    await host.until(reason("PoweredOff"))
    await host.set(powerState="PoweredOn")
    await host.until(reason("Running"))
    vm = await settled(host)
    assert attached(host) == {"eth0", "eth1"}
    assert said(vm, "RestartRequired") is None


async def test_a_guest_that_keeps_its_nic_is_asked_again(host: Host) -> None:
    await set_nics(host, FIRST, SECOND)
    host.machine.lets_go = False
    vm = await set_nics(host, FIRST)
    assert said(vm, "NICsPlugged") == "eth1: the guest keeps it."
    assert said(vm, "RestartRequired") is None
    assert attached(host) == {"eth0", "eth1"}
    host.machine.lets_go = True
    await host.clock.advance(61)
    vm = await settled(host)
    assert said(vm, "NICsPlugged") is None
    assert attached(host) == {"eth0"}


async def test_no_nic_stands_in_the_way_of_power(host: Host) -> None:
    host.machine.refuses_plug = Unavailable("not now", code="NotNow")
    await set_nics(host, FIRST, SECOND)
    await host.set(powerState="PoweredOff", powerOffMode="Hard")
    await host.until(reason("PoweredOff"))
    await host.quiet()
    assert attached(host) == set()


async def test_what_a_killed_daemon_had_begun_is_finished(host: Host) -> None:
    await set_nics(host, FIRST, SECOND)
    # It was killed after QEMU let go of the NIC, before it wrote that down.
    await host.machine.unplug_nic("eth1")
    await host.restart()
    vm = await settled(host)
    assert host.machine.nics == ["eth0", "eth1"]
    assert attached(host) == {"eth0", "eth1"}
    assert said(vm, "NICsPlugged") is None
