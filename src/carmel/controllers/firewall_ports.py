"""The firewall's ports, from the Ports in the store: with their VMs' labels on a host, with their own on a SmartNIC."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from carmel.controllers.runtime import Key, Runtime, key_of
from carmel.controllers.runtime.informer import Change
from carmel.network.firewall import LabelledVm, PortBinding
from carmel.network.firewall.bindings import binding_of
from carmel.resources.base import JsonObject
from carmel.resources.port import PORT, DataPlane, Port
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.store.protocol import Stored


@dataclass(frozen=True, slots=True)
class _Known:
    """``versions``: of the Port and, where there is one, of the VM that it was made from."""

    versions: tuple[str, str | None]
    binding: PortBinding


class StorePorts:
    """A host's ``PortSource``. A port has its VM's labels; one whose VM is gone keeps those of its own."""

    def __init__(self, runtime: Runtime) -> None:
        self._resources = runtime.resources(PORT, Port)
        self._ports = runtime.informer(PORT)
        self._vms = runtime.informer(VIRTUAL_MACHINE)
        self._known: dict[Key, _Known] = {}
        self._labelled: dict[Key, tuple[str, LabelledVm]] = {}

    def bindings(self) -> list[PortBinding]:
        self._known = {key_of(stored): self._current(stored) for stored in self._ports}
        return [one.binding for one in self._known.values()]

    def vms(self) -> list[LabelledVm]:
        self._labelled = {key_of(stored): self._vm(stored) for stored in self._vms}
        return [vm for _, vm in self._labelled.values()]

    def on_change(self, told: Callable[[], None]) -> None:
        _tell(self._ports.listen, _of_port, told)
        _tell(self._vms.listen, _own_labels, told)

    def _current(self, stored: Stored) -> _Known:
        """What is known, while neither the port nor its VM changed: all are asked for at every change of any."""
        known = self._known.get(key_of(stored))
        vm = None if known is None else self._vms.get(Key(stored.namespace, known.binding.vm))
        if known is not None and known.versions == _versions(stored, vm):
            return known
        port = self._resources.parse(stored)
        vm = self._vms.get(Key(stored.namespace, port.spec.vm_ref.name))
        labels = _own_labels((stored if vm is None else vm).json())
        binding = binding_of(port, labels)
        if vm is None or vm.uid != port.spec.owner:
            # Whoever writes a Port could name another VM's interface in it.
            binding = replace(binding, interface=None)
        return _Known(_versions(stored, vm), binding)

    def _vm(self, stored: Stored) -> tuple[str, LabelledVm]:
        known = self._labelled.get(key_of(stored))
        if known is not None and known[0] == stored.resource_version:
            return known
        labels = _own_labels(stored.json())
        return stored.resource_version, LabelledVm(stored.namespace or "default", stored.name, labels)


class NicPorts:
    """A SmartNIC's ``PortSource``: there are no VMs in its store, and a Port's own labels are what policies select."""

    def __init__(self, runtime: Runtime) -> None:
        self._resources = runtime.resources(PORT, Port)
        self._ports = runtime.informer(PORT)
        self._known: dict[Key, _Known] = {}

    def bindings(self) -> list[PortBinding]:
        self._known = {key_of(stored): self._current(stored) for stored in self._ports}
        return [one.binding for one in self._known.values()]

    def vms(self) -> list[LabelledVm]:
        """Those that have ports here, once a port, as each has labels of its own."""
        return [LabelledVm(port.key.namespace, port.vm, port.labels) for port in self.bindings() if not port.remote]

    def on_change(self, told: Callable[[], None]) -> None:
        _tell(self._ports.listen, _of_port, told)

    def _current(self, stored: Stored) -> _Known:
        known = self._known.get(key_of(stored))
        if known is not None and known.versions == _versions(stored, None):
            return known
        port = self._resources.parse(stored)
        return _Known(_versions(stored, None), binding_of(port, _own_labels(stored.json()), DataPlane.SMART_NIC))


def _versions(port: Stored, vm: Stored | None) -> tuple[str, str | None]:
    return port.resource_version, None if vm is None else vm.resource_version


def _own_labels(obj: JsonObject) -> Mapping[str, str]:
    return obj["metadata"].get("labels") or {}


def _of_port(obj: JsonObject) -> object:
    """What of a Port the firewall looks at: not its counters, which change all the time."""
    status = obj.get("status") or {}
    shown = [status.get(name) for name in ("dataPlane", "smartNIC", "interface", "addresses")]
    spec = obj["spec"]
    return [_own_labels(obj), spec.get("addresses"), spec.get("remote"), spec["vmRef"], shown]


def _tell(
    listen: Callable[[Callable[[Change], None]], None], about: Callable[[JsonObject], object], told: Callable[[], None]
) -> None:
    """Pass on the changes of what ``about`` picks of an object."""

    def changed(change: Change) -> None:
        states = [about(state) for state in change.states]
        if len(states) < 2 or states[0] != states[1]:
            told()

    listen(changed)
