"""Where a VM is best for its NICs that have functions: at the NUMA node of the SmartNIC."""

from __future__ import annotations

from collections.abc import Iterator

from carmel.client.objects import dig
from carmel.controllers.runtime import Key, Runtime
from carmel.resources.base import JsonObject
from carmel.resources.network import NETWORK
from carmel.resources.port import DataPlane
from carmel.resources.smartnic import SMART_NIC
from carmel.resources.virtualmachine import NetworkInterface, VirtualMachine


class Nearness:
    """By what the caches have: placement is asked often, and between two awaits."""

    def __init__(self, runtime: Runtime) -> None:
        self._networks = runtime.informer(NETWORK)
        self._smart_nics = runtime.informer(SMART_NIC)

    def __call__(self, vm: VirtualMachine) -> frozenset[int]:
        """The nodes. None for a NIC that may be on any of several SmartNICs of different nodes: it is given the nearest
        one once the VM has its place."""
        found = set[int]()
        for nic in vm.spec.networks:
            nodes = set(self._nodes(nic))
            if len(nodes) == 1:
                found |= nodes
        return frozenset(found)

    def _nodes(self, nic: NetworkInterface) -> Iterator[int]:
        stored = self._networks.get(Key(None, nic.network_ref.name))
        network: JsonObject = stored.json() if stored is not None else {}
        if dig(network, "spec", "dataPlane") != DataPlane.SMART_NIC:
            return
        named = dig(network, "spec", "smartNICRef", "name")
        for one in self._smart_nics:
            if named is not None and one.name != named:
                continue
            for function in dig(one.json(), "status", "functions") or ():
                if isinstance(node := function.get("numaNode"), int):
                    yield node
