"""Where VMs start, and what becomes of it while others come and go, as VMs and the Host show it."""

from __future__ import annotations

import asyncio

from carmel.controllers.placement import Means, plain_hardware
from carmel.controllers.runtime import Key, find_condition
from carmel.errors import Refused
from carmel.hypervisor.config import Pinning
from carmel.hypervisor.machine import MachineState
from carmel.hypervisor.pinning.failures import CannotPin
from tests.unit.controllers.placement.looking import (
    HOST_KEY,
    GiB,
    condition,
    cpus,
    events,
    machine_of,
    nodes,
    off,
    rules,
    running,
)
from tests.unit.controllers.placement.machines import NOTHING_KEPT, two_nodes
from tests.unit.controllers.virtualmachine.hosts import KEY, Host, message, reason


async def test_two_vms_land_on_two_nodes(host: Host) -> None:
    one, other = await running(host, "one", 4), await running(host, "other", 4)
    assert sorted([*nodes(one), *nodes(other)]) == [0, 1]
    for vm in (one, other):
        (node,) = nodes(vm)
        config = host.world.machines[vm.metadata.uid or ""].config
        own = tuple(range(node * 4, node * 4 + 4))
        assert config.pinning == Pinning((own,) * 4, own, (node,))
        assert [guest.host_node for guest in config.numa] == [node]
        assert cpus(vm) == [f"{own[0]}-{own[-1]}"] * 4
        assert condition(vm, "Placed").message == f"on host host, NUMA node {node}, CPUs {own[0]}-{own[-1]}"
        assert vm.status.placement is not None
        assert vm.status.placement.reasons


async def test_a_wide_vm_sees_the_silicon(host: Host) -> None:
    vm = await running(host, "w", 8, "12Gi", policy="Dedicated")
    assert vm.status.placement is not None
    assert [(node.vcpus, node.host_node) for node in vm.status.placement.guest_nodes or []] == [("0-3", 0), ("4-7", 1)]
    config = host.machine.config
    assert [node.distances for node in config.numa] == [(10, 20), (20, 10)]
    assert config.pinning is not None
    assert config.pinning.exclusive
    assert config.cpu.sockets == 2


async def test_no_cpu_is_dedicated_twice_however_many_start_at_once(host: Host) -> None:
    await asyncio.gather(*(host.create(f"d{number}", cpu={"count": 2, "policy": "Dedicated"}) for number in range(8)))
    await host.quiet()
    taken = [cpu for machine in host.world.machines.values() for cpu in machine.config.pinning.vcpus]  # type: ignore[union-attr]
    assert sorted(taken) == [(cpu,) for cpu in range(8)]
    assert len(host.world.machines) == 4
    vms = await host.vms.list("default")
    waiting = [vm for vm in vms if condition(vm, "Ready").status == "False"]
    assert len(waiting) == 4
    for vm in waiting:
        assert condition(vm, "Placed").reason == condition(vm, "Ready").reason == "InsufficientCPUs"
        assert condition(vm, "Accepted").status == "True"
        assert vm.status.placement is None


async def test_who_found_no_room_starts_when_another_leaves(host: Host) -> None:
    await running(host, "one", memory="8Gi")
    await running(host, "other", memory="8Gi")
    await host.create("w", memory={"size": "2Gi"})
    vm = await host.until(reason("InsufficientMemory"))
    assert condition(vm, "Placed").status == "False"
    await off(host, "one")
    await host.until(reason("Running"))


async def test_who_found_no_room_starts_when_the_host_has_more(host: Host) -> None:
    await host.create("w", memory={"size": "20Gi"})
    vm = await host.until(reason("InsufficientMemory"))
    assert condition(vm, "Accepted").status == "False"
    host.hardware = two_nodes(memory_bytes=16 * GiB)
    host.host_controller.machine_changed()
    await host.clock.advance(6)
    vm = await host.until(reason("Running"))
    assert nodes(vm) == [0, 1]
    assert condition(vm, "Accepted").status == "True"


async def test_a_device_that_the_host_does_not_have(host: Host) -> None:
    await host.create("w", placement={"near": ["eth7"]})
    vm = await host.until(reason("DeviceNotFound"))
    assert "spec.placement.near[0]: the host has no device 'eth7'" in message(vm)
    assert condition(vm, "Accepted").status == "False"
    await host.set(placement={"near": ["eth1"]})
    assert nodes(await host.until(reason("Running"))) == [1]


async def test_a_host_that_cannot_dedicate_refuses_with_the_reason(host: Host) -> None:
    host.means = Means(no_dedicated="carmeld does not run as root, and only root can keep CPUs for a VM")
    host.host_controller.machine_changed()
    await host.clock.advance(6)
    await host.quiet()
    await host.create("w", cpu={"count": 1, "policy": "Dedicated"})
    vm = await host.until(reason("DedicatedCPUsUnavailable"))
    assert "does not run as root" in message(vm)
    assert condition(vm, "Accepted").status == "False"


async def test_what_may_run_anywhere_is_started_as_ever(host: Host) -> None:
    host.hardware = plain_hardware("aarch64", 4096, 4, 8 * GiB)
    await host.restart()
    vm = await running(host, "w")
    assert (host.machine.config.pinning, host.machine.config.numa) == (None, ())
    assert cpus(vm) == ["0-3", "0-3"]
    await host.quiet()
    assert host.machine.moves == []


async def test_a_start_that_failed_gives_its_room_back(host: Host) -> None:
    host.hypervisor.failure = Refused("port 80 is taken", code="PortInUse")
    await host.create("w", cpu={"count": 8, "policy": "Dedicated"})
    await host.until(reason("PortInUse"))
    await host.quiet()
    host.hypervisor.failure = None
    await running(host, "other", 8, policy="Dedicated")


async def test_the_place_is_told_while_it_runs(host: Host) -> None:
    await running(host, "w")
    await off(host, "w")
    vm = await host.vms.get(KEY)
    assert vm.status.placement is None
    assert condition(vm, "Placed").message == "on host host"
    assert host.ledger.occupancy.placements == {}


async def test_a_vm_that_is_deleted_leaves_its_place(host: Host) -> None:
    vm = await running(host, "w", 8, policy="Dedicated")
    await host.vms.delete(vm)
    await host.until_gone()
    await host.quiet()
    assert host.ledger.occupancy.placements == {}


async def test_wishes_for_a_place_count_from_the_next_start(host: Host) -> None:
    await running(host, "w")
    await host.set(placement={"near": ["eth1"]})
    vm = await host.until(lambda one: find_condition(one.status, "RestartRequired") is not None)
    assert "spec.placement.near" in condition(vm, "RestartRequired").message
    await host.set(placement={"near": ["eth1"]}, restartRequestedAt="2026-11-23T10:00:00Z")
    vm = await host.until(lambda one: reason("Running")(one) and one.status.launch_id == "launch-2")
    assert nodes(vm) == [1]


async def test_a_vm_that_starts_anew_keeps_its_room(host: Host) -> None:
    await running(host, "w", 8, policy="Dedicated")
    await host.create("other", cpu={"count": 8, "policy": "Dedicated"})
    await host.until(reason("InsufficientCPUs"), Key("default", "other"))
    (await machine_of(host, "w")).end(MachineState.PANICKED)
    await host.until(lambda one: reason("Running")(one) and one.status.restart_count == 1)
    await host.quiet()
    assert reason("InsufficientCPUs")(await host.vms.get(Key("default", "other")))


# -- others come and go -------------------------------------------------------------------------------------------
async def test_shared_vms_are_kept_off_dedicated_cpus(host: Host) -> None:
    await running(host, "shared", 4, placement={"near": ["eth1"], "rebalance": "Never"})
    before = (await machine_of(host, "shared")).pinning
    assert before is not None
    await running(host, "dedicated", 2, policy="Dedicated", placement={"near": ["eth1"]})
    machine, own = await machine_of(host, "shared"), (await machine_of(host, "dedicated")).config.pinning
    assert own is not None
    vm = await host.until(lambda one: cpus(one)[0] == "6-7" or cpus(one)[0] == "4-5", Key("default", "shared"))
    assert machine.pinning is not None
    assert not set(machine.pinning.cpus) & {cpu for cpus in own.vcpus for cpu in cpus}
    assert len(cpus(vm)) == 4
    await off(host, "dedicated")
    assert machine.pinning == before


async def test_a_repin_that_fails_is_told_and_not_repeated(host: Host) -> None:
    await running(host, "shared", 4, placement={"near": ["eth1"], "rebalance": "Never"})
    machine = await machine_of(host, "shared")
    tried = []

    async def refuse(pinning: Pinning) -> None:
        tried.append(pinning)
        raise CannotPin("the kernel says no")

    machine.repin = refuse  # type: ignore[method-assign]
    await running(host, "dedicated", 2, policy="Dedicated", placement={"near": ["eth1"]})
    await host.quiet()
    await host.clock.advance(60)
    await host.quiet()
    assert len(tried) == 1
    assert await events(host, "RepinFailed") == ["the kernel says no."]
    assert reason("Running")(await host.vms.get(Key("default", "shared")))


async def test_rules_count_for_the_next_start(host: Host) -> None:
    before = await running(host, "before", 2, policy="Dedicated")
    (first, second) = cpus(before)
    await rules(host, reservedCpus=f"{first},{second}")
    assert cpus(await host.vms.get(Key("default", "before"))) == [first, second]
    told = await host.hosts.get(HOST_KEY)
    assert told.status.placement is not None
    assert told.status.placement.reserved_cpus == f"{first}-{second}"
    later = [cpus(await running(host, f"l{number}", 2, policy="Dedicated")) for number in range(3)]
    assert not {cpu for some in later for cpu in some} & {first, second}


async def test_rules_that_contradict_the_machine_are_told(host: Host) -> None:
    await rules(host, reservedCpus="0-7", reservedMemory="1Ti")
    told = await host.hosts.get(HOST_KEY)
    assert condition(told, "PlacementRulesValid").status == "False"
    assert "leaves no CPU for VMs" in condition(told, "PlacementRulesValid").message
    await running(host, "w")
    await rules(host, **NOTHING_KEPT)
    assert condition(await host.hosts.get(HOST_KEY), "PlacementRulesValid").status == "True"


async def test_the_host_tells_its_machine(host: Host) -> None:
    await running(host, "d", 2, policy="Dedicated", placement={"near": ["eth1"]})
    await host.clock.advance(6)
    await host.quiet()
    told = await host.hosts.get(HOST_KEY)
    assert told.status.hardware is not None
    assert [node.id for node in told.status.hardware.numa_nodes] == [0, 1]
    assert told.status.placement is not None
    assert told.status.placement.free_cpus in {"0-3,6-7", "0-5", "0-4,7"}
    # Nothing that nobody did is written again.
    version = told.metadata.resource_version
    await host.clock.advance(1000)
    await host.quiet()
    assert (await host.hosts.get(HOST_KEY)).metadata.resource_version == version


async def test_a_machine_that_cannot_be_read(host: Host) -> None:
    await running(host, "w", 4)
    host.hardware = ValueError("node9 has no CPUs")
    host.host_controller.machine_changed()
    await host.clock.advance(6)
    await host.quiet()
    told = condition(await host.hosts.get(HOST_KEY), "HardwareKnown")
    assert (told.status, told.reason) == ("False", "InternalError")
    assert "node9 has no CPUs" in told.message
    await running(host, "other", 4)
    assert len(host.world.machines) == 2
