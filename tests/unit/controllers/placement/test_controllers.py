"""Placement as VMs and the Host show it, on a machine of two nodes, over daemons that come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from carmel.controllers.placement import Means, plain_hardware
from carmel.controllers.placement.rebalancer import CALM_SECONDS, INTERVAL_SECONDS
from carmel.controllers.runtime import Key, find_condition
from carmel.errors import Refused
from carmel.hypervisor.config import Pinning
from carmel.hypervisor.machine import MachineState
from carmel.hypervisor.pinning.failures import CannotPin
from carmel.paths import Paths
from carmel.placement.model import Budget, Refusal, Request
from carmel.resources.base import Condition
from carmel.resources.core import EVENT
from carmel.resources.host import HOST, HostSpec, RebalanceStatus
from carmel.resources.host import Host as HostResource
from carmel.resources.virtualmachine import VirtualMachine
from tests.fakes.clock import FakeClock
from tests.fakes.hypervisor import FakeMachine, World
from tests.stores import open_store
from tests.unit.controllers.placement.machines import NOTHING_KEPT, two_nodes
from tests.unit.controllers.virtualmachine.hosts import KEY, Host, message, reason

GiB = 2**30


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    clock = FakeClock()
    paths = Paths(tmp_path / "s", tmp_path / "r", tmp_path / "c")
    async with open_store(tmp_path) as store:
        made = Host(store, World(paths, clock.now), clock, two_nodes())
        spec = HostSpec.model_validate({"placement": NOTHING_KEPT})
        await made.host_controller.ensure()
        await made.hosts.update(await made.hosts.get(HOST_KEY), lambda one: setattr(one, "spec", spec))
        await made.start()
        yield made
        await made.stop()


HOST_KEY = Key(None, "host")


async def rules(host: Host, **placement: Any) -> None:
    """Change the Host's rules, as an administrator does."""

    def change(one: HostResource) -> None:
        given = one.spec.placement.model_dump(by_alias=True, exclude_none=True)
        one.spec = HostSpec.model_validate({"placement": {**given, **placement}})

    await host.hosts.update(await host.hosts.get(HOST_KEY), change)
    await host.quiet()


async def running(host: Host, name: str, vcpus: int = 2, memory: str = "1Gi", **spec: Any) -> VirtualMachine:
    cpu = {"count": vcpus, "policy": spec.pop("policy", "Shared")}
    await host.create(name, cpu=cpu, memory={"size": memory}, powerOffMode="Hard", **spec)
    return await host.until(reason("Running"), Key("default", name))


async def off(host: Host, name: str) -> None:
    await host.set(name, powerState="PoweredOff")
    await host.until(reason("PoweredOff"), Key("default", name))
    await host.quiet()


def nodes(vm: VirtualMachine) -> list[int]:
    assert vm.status.placement is not None
    return vm.status.placement.memory_nodes


def cpus(vm: VirtualMachine) -> list[str]:
    assert vm.status.placement is not None
    return [vcpu.host_cpus for vcpu in vm.status.placement.vcpus]


def on_nodes(*wanted: int) -> Callable[[VirtualMachine], bool]:
    return lambda vm: vm.status.placement is not None and vm.status.placement.memory_nodes == list(wanted)


def condition(obj: VirtualMachine | HostResource, type_: str) -> Condition:
    found = find_condition(obj.status, type_)
    assert found is not None
    return found


async def machine_of(host: Host, name: str) -> FakeMachine:
    vm = await host.vms.get(Key("default", name))
    return host.world.machines[vm.metadata.uid or ""]


async def rebalance_status(host: Host) -> RebalanceStatus:
    return (await host.hosts.get(HOST_KEY)).status.rebalance or RebalanceStatus()


async def events(host: Host, wanted: str) -> list[str]:
    await host.runtime.events.flush()
    found = (one.json() for one in (await host.store.list(EVENT)).items)
    return [one["message"] for one in found if one["reason"] == wanted]


async def crowded(host: Host) -> None:
    """``a`` and ``c`` share a node; ``b``, which had the other, is gone."""
    for name in "abc":
        await running(host, name, 4, "4Gi")
    assert nodes(await host.vms.get(Key("default", "a"))) == nodes(await host.vms.get(Key("default", "c")))
    await off(host, "b")


# -- where VMs start ----------------------------------------------------------------------------------------------
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


# -- daemons come and go ------------------------------------------------------------------------------------------
async def test_another_daemon_knows_who_has_what(host: Host) -> None:
    before = {name: cpus(await running(host, name, 2, policy="Dedicated")) for name in "abc"}
    await host.restart()
    await host.create("wide", cpu={"count": 4, "policy": "Dedicated"})
    await host.until(reason("InsufficientCPUs"), Key("default", "wide"))
    rest = await running(host, "d", 2, policy="Dedicated")
    taken = [cpu for some in before.values() for cpu in some]
    assert not set(cpus(rest)) & set(taken)
    for name, was in before.items():
        vm = await host.vms.get(Key("default", name))
        assert cpus(vm) == was
        assert vm.status.placement is not None
        assert vm.status.placement.reasons
    assert len(host.world.launches) == 4


async def test_a_vm_of_an_older_carmel_is_counted(host: Host) -> None:
    vm = await running(host, "w", 2, "6Gi")
    await host.stop()
    file = host.world.paths.machine(vm.metadata.uid or "").launched_spec
    document = orjson.loads(file.read_bytes())
    del document["place"]
    file.write_bytes(orjson.dumps(document))
    host._open()
    await host.start()
    vm = await host.until(lambda one: one.status.placement is None)
    assert reason("Running")(vm)
    # It lies somewhere: 3 GiB of it are counted on each node.
    await host.create("big", memory={"size": "6Gi"}, numa={"nodes": [{"cpus": "0", "memory": "6Gi"}]})
    await host.until(reason("InsufficientMemory"), Key("default", "big"))
    await running(host, "small", 1, "5Gi")


async def test_a_suspended_vm_gives_its_place_and_comes_back_elsewhere(host: Host) -> None:
    vm = await running(host, "w", 4, "6Gi", placement={"near": ["eth1"]})
    shape = (host.machine.config.cpu, [(n.vcpus, n.memory_bytes, n.distances) for n in host.machine.config.numa])
    assert nodes(vm) == [1]
    await host.set(powerState="Suspended")
    await host.until(reason("Suspended"))
    await running(host, "other", 4, "6Gi", placement={"near": ["eth1"]})
    await host.restart()
    await host.set(powerState="PoweredOn")
    vm = await host.until(reason("Running"))
    assert nodes(vm) == [0]
    config = (await machine_of(host, "w")).config
    assert (config.cpu, [(n.vcpus, n.memory_bytes, n.distances) for n in config.numa]) == shape
    assert [node.host_node for node in config.numa] == [0]


async def test_a_suspended_wide_vm_wakes_up_in_the_machine_it_fell_asleep_in(host: Host) -> None:
    await running(host, "w", 6, "12Gi")
    before = host.machine.config
    assert len(before.numa) == 2
    await host.set(powerState="Suspended")
    await host.until(reason("Suspended"))
    host.hardware = two_nodes(cpus=8, memory_bytes=32 * GiB)
    await host.restart()
    await host.set(powerState="PoweredOn")
    await host.until(reason("Running"))
    after = host.machine.config
    assert after.cpu == before.cpu
    assert [(n.vcpus, n.memory_bytes, n.distances) for n in after.numa] == [
        (n.vcpus, n.memory_bytes, n.distances) for n in before.numa
    ]


# -- repair -------------------------------------------------------------------------------------------------------
async def test_repair_moves_and_tells(host: Host) -> None:
    await crowded(host)
    assert (await rebalance_status(host)).done is None
    await host.clock.advance(CALM_SECONDS + 1)
    await host.quiet()
    (done,) = (await rebalance_status(host)).done or []
    assert (done.error, done.memory_bytes, done.at) == (None, 4 * GiB, host.clock.now().replace(microsecond=0))
    vm = await host.until(on_nodes(*done.to_nodes), Key("default", done.name))
    machine = await machine_of(host, done.name)
    assert machine.pinning is not None
    assert (list(machine.pinning.memory_nodes), cpus(vm)[0]) == (done.to_nodes, done.to_cpus)
    (said,) = await events(host, "Moved")
    assert said.startswith(f"NUMA node {done.from_nodes[0]} to NUMA node {done.to_nodes[0]}, 4 GiB of memory.")
    # Another daemon finds it there.
    await host.restart()
    assert nodes(await host.until(reason("Running"), Key("default", done.name))) == done.to_nodes
    await host.clock.advance(INTERVAL_SECONDS + 1)
    await host.quiet()
    assert len((await rebalance_status(host)).done or []) == 1
    assert (await rebalance_status(host)).proposed is None


async def test_manual_repair_only_proposes_until_it_is_asked(host: Host) -> None:
    await rules(host, rebalance={"mode": "Manual"})
    await crowded(host)
    await host.clock.advance(CALM_SECONDS + 1)
    await host.quiet()
    status = await rebalance_status(host)
    (proposed,) = status.proposed or []
    assert status.done is None
    assert all(machine.moves == [] for machine in host.world.machines.values())
    await rules(host, rebalance={"mode": "Manual", "requestedAt": "2026-11-23T11:00:00Z"})
    status = await rebalance_status(host)
    (done,) = status.done or []
    assert (done.name, done.to_nodes, status.proposed) == (proposed.name, proposed.to_nodes, None)
    assert status.answered_at is not None
    assert status.answered_at.hour == 11
    # Answered once is answered.
    await host.restart()
    await host.clock.advance(INTERVAL_SECONDS + 1)
    await host.quiet()
    assert len((await rebalance_status(host)).done or []) == 1


async def test_repair_keeps_to_its_budget(host: Host) -> None:
    await rules(host, rebalance={"memoryPerPass": "1Gi"})
    await crowded(host)
    await host.clock.advance(CALM_SECONDS + 1)
    await host.quiet()
    status = await rebalance_status(host)
    assert (status.done, status.proposed) == (None, None)
    await rules(host, rebalance={"memoryPerPass": "4Gi"})
    assert len((await rebalance_status(host)).done or []) == 1


@pytest.mark.parametrize("wish", [{"rebalance": "Never"}, {"rebalance": "Allow"}])
async def test_who_does_not_want_to_be_moved_is_not(host: Host, wish: dict[str, str]) -> None:
    for name in "abc":
        await running(host, name, 4, "4Gi", placement={"rebalance": "Never"})
    await off(host, "b")
    await host.clock.advance(CALM_SECONDS + 1)
    await host.quiet()
    assert (await rebalance_status(host)).done is None
    # What the spec says now counts, without a restart.
    await host.set("a", placement=wish)
    await host.quiet()
    await host.clock.advance(INTERVAL_SECONDS + 1)
    await host.quiet()
    done = (await rebalance_status(host)).done or []
    assert [one.name for one in done] == (["a"] if wish["rebalance"] == "Allow" else [])
    assert find_condition((await host.vms.get(Key("default", "a"))).status, "RestartRequired") is None


async def test_a_move_that_fails_is_told_and_leaves_everything(host: Host) -> None:
    await crowded(host)

    async def refuse(pinning: Pinning) -> None:
        raise CannotPin("the kernel says no")

    for name in "ac":
        (await machine_of(host, name)).repin = refuse  # type: ignore[method-assign]
    await host.clock.advance(CALM_SECONDS + 1)
    await host.quiet()
    done = (await rebalance_status(host)).done or []
    assert done
    assert {one.error for one in done} == {"the kernel says no."}
    for name in "ac":
        assert nodes(await host.vms.get(Key("default", name))) == done[0].from_nodes
    assert len(done) == len(await events(host, "MoveFailed"))
    # A machine that cannot be moved is not asked again.
    await host.clock.advance(3 * INTERVAL_SECONDS)
    await host.quiet()
    assert len((await rebalance_status(host)).done or []) <= 2
    assert (await rebalance_status(host)).proposed is None
    await host.restart()
    assert nodes(await host.until(reason("Running"), Key("default", "a"))) == done[0].from_nodes


@pytest.mark.parametrize("arrived", [False, True])
async def test_a_daemon_that_is_killed_in_the_middle_of_a_move(host: Host, arrived: bool) -> None:
    await crowded(host)
    begun = asyncio.Event()

    for name in "ac":
        machine = await machine_of(host, name)
        real = machine.repin

        async def hang(pinning: Pinning, real: Any = real) -> None:
            if arrived:
                await real(pinning)
            begun.set()
            await asyncio.Event().wait()

        machine.repin = hang  # type: ignore[method-assign]
    await host.clock.advance(CALM_SECONDS + 1)
    async with asyncio.timeout(5):
        await begun.wait()
    await host.controller.stop()
    await host.runtime.stop(0.0)
    await host.hypervisor.close()
    moving = [
        uid
        for uid in host.world.machines
        if orjson.loads(host.world.paths.machine(uid).launched_spec.read_bytes())["place"]["moving"] is not None
    ]
    (uid,) = moving
    for machine in host.world.machines.values():
        del machine.repin
    host._open()
    await host.start()
    await host.quiet()
    machine = host.world.machines[uid]
    assert machine.pinning is not None
    place = orjson.loads(host.world.paths.machine(uid).launched_spec.read_bytes())["place"]
    assert place["moving"] is None
    at = sorted({node["host_node"] for node in place["placement"]["nodes"]})
    assert at == list(machine.pinning.memory_nodes)
    # Whatever it was recorded to be, it was made sure of.
    assert machine.moves[-1] == machine.pinning
    (vm,) = [one for one in await host.vms.list() if one.metadata.uid == uid]
    assert nodes(vm) == at
    # Then repair goes on, if it has to.
    await host.clock.advance(CALM_SECONDS + 1)
    await host.quiet()
    places = [nodes(await host.vms.get(Key("default", name))) for name in "ac"]
    assert sorted(places) == [[0], [1]]


async def test_room_is_made_for_who_has_none(host: Host) -> None:
    """Two small VMs, one on each node, leave no node whole: one of them steps aside."""
    await running(host, "a", 1, "3Gi", placement={"near": ["eth1"]})
    await running(host, "b", 1, "3Gi")
    assert [nodes(await host.vms.get(Key("default", name))) for name in "ab"] == [[1], [0]]
    numa = {"nodes": [{"cpus": "0-1", "memory": "7Gi"}]}
    await host.create("w", cpu={"count": 2}, memory={"size": "7Gi"}, numa=numa)
    vm = await host.until(reason("Running"))
    (done,) = (await rebalance_status(host)).done or []
    assert done.from_nodes == nodes(vm)
    assert "default/w" in done.reason


async def test_no_room_is_made_where_repair_is_by_hand(host: Host) -> None:
    await rules(host, rebalance={"mode": "Manual"})
    await running(host, "a", 1, "3Gi", placement={"near": ["eth1"]})
    await running(host, "b", 1, "3Gi")
    numa = {"nodes": [{"cpus": "0-1", "memory": "7Gi"}]}
    await host.create("w", cpu={"count": 2}, memory={"size": "7Gi"}, numa=numa)
    await host.until(reason("InsufficientMemory"))
    await host.quiet()
    assert (await rebalance_status(host)).done is None
    await rules(host, rebalance={"mode": "Automatic"})
    await host.until(reason("Running"))


async def test_the_host_is_deleted_and_made_anew(host: Host) -> None:
    await crowded(host)
    await host.store.delete(HOST, None, "host")
    await host.quiet()
    await host.clock.advance(CALM_SECONDS + 1)
    await host.quiet()
    assert (await host.hosts.get(HOST_KEY)).status.hardware is not None


async def test_searching_in_vain_does_not_eat_the_host(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who searched for five seconds and found nothing, searches no more for fifty."""
    searched: list[str] = []

    def search(_silicon: object, _occupancy: object, wanted: Request, _budget: Budget) -> Refusal:
        searched.append(wanted.name)
        host.clock._elapsed += 5
        return Refusal("InsufficientMemory", "none")

    monkeypatch.setattr("carmel.controllers.placement.rebalancer.make_room", search)
    for name in "ab":
        await running(host, name, memory="8Gi")
    for name in "cd":
        await host.create(name, memory={"size": "2Gi"})
    await host.quiet()
    assert len(searched) == 1
    await host.clock.advance(40)
    await host.quiet()
    assert len(searched) == 1
    await host.clock.advance(20)
    await host.quiet()
    assert sorted(searched) == ["default/c", "default/d"]
    # Nothing changed since, so there is nothing to search anew.
    await host.clock.advance(1000)
    await host.quiet()
    assert len(searched) == 2


async def test_a_record_that_cannot_be_written(host: Host) -> None:
    """A VM is not started when nobody would know later where it is."""
    vm = await host.create("w", powerState="PoweredOff")
    blocked = host.world.paths.machine(vm.metadata.uid or "").launched_spec
    blocked.mkdir(parents=True)
    await host.set(powerState="PoweredOn")
    vm = await host.until(reason("StateNotWritable"))
    assert "Make room in the state directory" in message(vm)
    assert host.world.launches == []
    assert host.ledger.occupancy.placements == {}
    blocked.rmdir()
    await host.clock.advance(61)
    await host.until(reason("Running"))


@pytest.mark.parametrize("comes", [False, True])
async def test_who_comes_while_others_are_moved_changes_the_plan(host: Host, comes: bool) -> None:
    """Four VMs on one node, none on the other: two moves, or one if a fifth takes its place there meanwhile."""
    for name in "abcdefgh":
        await running(host, name, 4)
    for name in "bdfh":
        await off(host, name)
    stay = [await machine_of(host, name) for name in "aceg"]
    assert {machine.pinning.memory_nodes for machine in stay if machine.pinning} == {(0,)}
    begun, go_on = asyncio.Event(), asyncio.Event()
    for machine in stay:

        async def slow(pinning: Pinning, real: Any = machine.repin) -> None:
            begun.set()
            await go_on.wait()
            await real(pinning)

        machine.repin = slow  # type: ignore[method-assign]
    await host.clock.advance(CALM_SECONDS + 1)
    async with asyncio.timeout(5):
        await begun.wait()
    if comes:
        assert nodes(await running(host, "fifth", 4)) == [1]
    go_on.set()
    await host.quiet()
    done = (await rebalance_status(host)).done or []
    assert [one.error for one in done] == [None] * (1 if comes else 2)
    assert (await rebalance_status(host)).proposed is None
