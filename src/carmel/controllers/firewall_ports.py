"""The firewall's ports, from the Ports and VMs that the store has."""

from __future__ import annotations

from collections.abc import Callable

from carmel.controllers.runtime import Key, Runtime
from carmel.network.firewall import PortBinding
from carmel.network.firewall.bindings import binding_of
from carmel.resources.port import PORT, Port
from carmel.resources.virtualmachine import VIRTUAL_MACHINE


class StorePorts:
    """A ``PortSource``. A port whose VM is gone has no labels, and is selected by what selects everything."""

    def __init__(self, runtime: Runtime) -> None:
        self._resources = runtime.resources(PORT, Port)
        self._ports = runtime.informer(PORT)
        self._vms = runtime.informer(VIRTUAL_MACHINE)

    def bindings(self) -> list[PortBinding]:
        return [self._binding(self._resources.parse(stored)) for stored in self._ports]

    def on_change(self, told: Callable[[], None]) -> None:
        """Call ``told`` whenever a Port comes, goes or changes."""
        self._ports.listen(lambda _change: told())

    def _binding(self, port: Port) -> PortBinding:
        vm = self._vms.get(Key(port.metadata.namespace, port.spec.vm_ref.name))
        return binding_of(port, {} if vm is None else (vm.json()["metadata"].get("labels") or {}))
