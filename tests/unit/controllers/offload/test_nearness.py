"""VMs want to be where the SmartNIC is whose functions they get."""

from __future__ import annotations

from carmel.controllers.offload.nearness import Nearness
from carmel.resources.base import JsonObject
from carmel.resources.network import NETWORK
from carmel.resources.smartnic import SMART_NIC
from carmel.resources.virtualmachine import VirtualMachine
from tests.unit.controllers.offload.world import LAN, OffloadWorld


async def make_nic(world: OffloadWorld, name: str, node: int) -> None:
    await world.store.create(SMART_NIC, {"metadata": {"name": name}})
    functions = [{"id": "pf0vf0", "kind": "net", "numaNode": node}, {"id": "pf0vf1", "kind": "net"}]
    body = {"metadata": {"name": name}, "status": {"functions": functions}}
    await world.store.replace(SMART_NIC, body, subresource="status")


def vm(*nics: JsonObject) -> VirtualMachine:
    return VirtualMachine.model_validate(
        {
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"memory": {"size": "1Gi"}, "networks": [{"name": f"eth{n}", **nic} for n, nic in enumerate(nics)]},
        }
    )


async def test_near_its_smartnic(world: OffloadWorld) -> None:
    on_lan, on_other = {"networkRef": {"name": "lan"}}, {"networkRef": {"name": "other"}}
    await world.store.create(
        NETWORK, {"metadata": {"name": "other"}, "spec": {**LAN, "smartNICRef": {"name": "second"}}}
    )
    await make_nic(world, "first", 1)
    async with world.daemon():
        near = Nearness(world.runtime)
        assert near(vm(on_lan)) == {1}
        # In software it has a function as well.
        assert near(vm({**on_lan, "dataPlane": "Host"})) == {1}
        assert near(vm({"networkRef": {"name": "none"}})) == frozenset()
        assert near(vm()) == frozenset()
    await make_nic(world, "second", 0)
    async with world.daemon():
        near = Nearness(world.runtime)
        # Either may be its: it is placed first, and then given the nearest.
        assert near(vm(on_lan)) == frozenset()
        assert near(vm(on_other)) == {0}
