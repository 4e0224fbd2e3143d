"""Places outlive the daemon, and a suspended VM's run."""

from __future__ import annotations

import orjson

from carmel.controllers.runtime import Key
from tests.unit.controllers.placement.looking import (
    GiB,
    cpus,
    machine_of,
    nodes,
    running,
)
from tests.unit.controllers.placement.machines import two_nodes
from tests.unit.controllers.virtualmachine.hosts import Host, reason


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
