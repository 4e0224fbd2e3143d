"""What tests of placement ask of a host, and do to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from carmel.controllers.runtime import Key, find_condition
from carmel.resources.base import Condition
from carmel.resources.core import EVENT
from carmel.resources.host import Host as HostResource
from carmel.resources.host import HostSpec, RebalanceStatus
from carmel.resources.virtualmachine import VirtualMachine
from tests.fakes.hypervisor import FakeMachine
from tests.unit.controllers.virtualmachine.hosts import Host, reason

GiB = 2**30
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
