"""The firewall's ports, from the Ports and VMs that the store has."""

from __future__ import annotations

from collections.abc import Callable

from carmel.controllers.runtime import Key, Runtime, key_of
from carmel.network.firewall import PortBinding
from carmel.network.firewall.bindings import binding_of
from carmel.resources.port import PORT, Port
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.store.protocol import Stored


class StorePorts:
    """A ``PortSource``. A port whose VM is gone has no labels, and is selected by what selects everything."""

    def __init__(self, runtime: Runtime) -> None:
        self._resources = runtime.resources(PORT, Port)
        self._ports = runtime.informer(PORT)
        self._vms = runtime.informer(VIRTUAL_MACHINE)
        self._known: dict[Key, tuple[tuple[str, str | None], PortBinding]] = {}

    def bindings(self) -> list[PortBinding]:
        self._known = {key_of(stored): self._current(stored) for stored in self._ports}
        return [binding for _, binding in self._known.values()]

    def on_change(self, told: Callable[[], None]) -> None:
        """Call ``told`` whenever a Port comes, goes or changes."""
        self._ports.listen(lambda _change: told())

    def _current(self, stored: Stored) -> tuple[tuple[str, str | None], PortBinding]:
        """What is known, while neither the port nor its VM changed: all are asked for at every change of any."""
        known = self._known.get(key_of(stored))
        vm = None if known is None else self._vms.get(Key(stored.namespace, known[1].vm))
        versions = (stored.resource_version, vm.resource_version if vm is not None else None)
        if known is not None and known[0] == versions:
            return known
        port = self._resources.parse(stored)
        vm = self._vms.get(Key(stored.namespace, port.spec.vm_ref.name))
        labels = {} if vm is None else (vm.json()["metadata"].get("labels") or {})
        versions = (stored.resource_version, vm.resource_version if vm is not None else None)
        return versions, binding_of(port, labels)
