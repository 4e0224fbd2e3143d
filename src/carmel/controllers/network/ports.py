"""Ports that this host switches: accepted or refused, kept as they are wanted while they are plugged in, and shown.

They are plugged in by the start of their VM (``TapNics``) and taken out at its end: a Port that is deleted under a VM
that runs is made anew by the VM's controller, and nothing happens to the VM.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Mapping

from carmel.controllers.network.hostnetworks import HostNetworks, is_hosted
from carmel.controllers.network.plans import interface_of, network_plan, port_plan
from carmel.controllers.network.port_status import Readings, Seen, describe, takes_precedence
from carmel.controllers.runtime import ControllerSpec, Key, Resources, Runtime
from carmel.controllers.runtime.informer import Change
from carmel.controllers.virtualmachine.machineports import is_made_for, port_name
from carmel.errors import CarmelError, NotFound, Refused
from carmel.network.dataplane import PortPlan
from carmel.network.host.check import check_port
from carmel.resources.base import JsonObject
from carmel.resources.network import NETWORK, Network
from carmel.resources.port import PORT, Port
from carmel.resources.port import DataPlane as Switch
from carmel.resources.virtualmachine import VIRTUAL_MACHINE, VirtualMachine

READ = Key(None, "readings")
"""A pass that reads counters and addresses of all ports."""
READ_SECONDS = 30.0
_SOON_SECONDS, _EAGER_SECONDS = 3.0, 120.0
"""While guests boot that were plugged in just now, their addresses are waited for."""
_RIVALS, _WATCHERS, _NETWORK = "rivals", "watchers", "network"


class PortController:
    """Of a host, where Ports are VMs' NICs; a Port that says so and is not is refused."""

    def __init__(self, runtime: Runtime, host: HostNetworks) -> None:
        self._runtime = runtime
        self._host = host
        self._resources: Resources[Port] = runtime.resources(PORT, Port, manager="port-controller")
        self._networks = runtime.resources(NETWORK, Network)
        self._vms = runtime.resources(VIRTUAL_MACHINE, VirtualMachine)
        self._applied: dict[str, PortPlan] = {}
        self._readings: dict[Key, Readings] = {}
        self._reading = False
        self._eager_until = 0.0
        self._informer = runtime.informer(PORT)
        self._informer.add_index(_RIVALS, lambda port: rival_keys(port["spec"]))
        self._informer.add_index(_WATCHERS, _mirrored)
        self._informer.add_index(_NETWORK, lambda port: [port["spec"]["networkRef"]["name"]])
        self._controller = runtime.add(
            ControllerSpec(
                "port", PORT, self.reconcile, workers=2, on_failure=self._failed, retry_permanent_seconds=60.0
            )
        )
        self._informer.listen(self._port_changed)
        runtime.informer(NETWORK).listen(self._network_changed)

    def look(self, key: Key) -> None:
        """The Port was plugged in, or taken out."""
        self._controller.enqueue(key)

    async def reconcile(self, key: Key) -> float | None:
        if key == READ:
            return await self._read()
        port = await self._resources.find(key)
        if port is None:
            self._readings.pop(key, None)
            return None
        network = await self._networks.find(Key(None, port.spec.network_ref.name))
        vm = await self._vms.find(Key(key.namespace, port.spec.vm_ref.name))
        if network is None or not _is_hosts(port, network, vm) or port.status.function is not None:
            # Nobody's, or a SmartNIC's: until its function was pulled out, too.
            return None
        mirror = await self._mirror(port)
        plan = port_plan(port, mirror=mirror)
        refusal = self._refusal(port, plan, network, vm, mirror)
        attached = await self._attached(plan.interface) and vm is not None and is_made_for(port, vm)
        error: CarmelError | None = refusal
        if attached and refusal is None:
            error = await self._apply(plan)
        if attached:
            self._begin_reading(fresh=port.status.interface is None)
        else:
            self._applied.pop(plan.interface, None)
            self._readings.pop(key, None)
        seen = Seen(plan, attached, refusal, error, self._readings.get(key))
        now = self._runtime.clock.now()
        with contextlib.suppress(NotFound):
            await self._resources.update_status(port, lambda one: describe(one, seen, now))
        return None

    async def _attached(self, interface: str) -> bool:
        return self._host.begun and interface in await (await self._host.plane()).attached()

    async def _apply(self, plan: PortPlan) -> CarmelError | None:
        if self._applied.get(plan.interface) == plan:
            return None
        try:
            await (await self._host.plane()).update(plan)
        except (Refused, NotFound) as error:
            return error
        self._applied[plan.interface] = plan
        return None

    async def _mirror(self, port: Port) -> Port | None:
        target = port.spec.mirror_to
        return None if target is None else await self._resources.find(Key(port.metadata.namespace, target.name))

    # -- who may have what ----------------------------------------------------------------------------------------
    def _refusal(
        self, port: Port, plan: PortPlan, network: Network, vm: VirtualMachine | None, mirror: Port | None
    ) -> Refused | None:
        if vm is None or not is_made_for(port, vm) or port.metadata.name != port_name(vm, port.spec.nic):
            return Refused(
                "it is no VM's NIC",
                code="NotOfAVM",
                hint="Ports are made for the NICs of VMs (spec.networks); delete this one",
            )
        if mirror is not None and mirror.spec.network_ref != port.spec.network_ref:
            return Refused(
                f"Port {mirror.metadata.name} is on another network", code="InvalidMirror", hint="mirror to one on this"
            )
        try:
            check_port(plan, network_plan(network), [port_plan(one) for one in self._rivals(port)])
        except Refused as refusal:
            return refusal
        return None

    def _rivals(self, port: Port) -> Iterator[Port]:
        """Ports that have the same MAC address or address, and had it first."""
        own = Key(port.metadata.namespace, port.metadata.name)
        for value in rival_keys(port.spec.to_json()):
            for key in self._informer.indexed(_RIVALS, value):
                stored = self._informer.get(key)
                if key == own or stored is None:
                    continue
                other = self._resources.parse(stored)
                if interface_of(other) != interface_of(port) and takes_precedence(other, port):
                    yield other

    # -- where keys come from -------------------------------------------------------------------------------------
    def _port_changed(self, change: Change) -> None:
        """What a Port has, had or mirrors concerns others too."""
        specs = [state["spec"] for state in change.states]
        if len(specs) == 2 and specs[0] == specs[1]:
            return
        for spec in specs:
            for value in rival_keys(spec):
                self._enqueue(self._informer.indexed(_RIVALS, value))
        self._enqueue(self._informer.indexed(_WATCHERS, f"{change.key.namespace}/{change.key.name}"))

    def _network_changed(self, change: Change) -> None:
        wanted = [state["spec"] for state in change.states]
        if len(wanted) < 2 or wanted[0] != wanted[1]:
            self._enqueue(self._informer.indexed(_NETWORK, change.key.name))

    def _enqueue(self, keys: Iterable[Key]) -> None:
        for key in keys:
            self._controller.enqueue(key)

    # -- counters and addresses -----------------------------------------------------------------------------------
    def _begin_reading(self, *, fresh: bool) -> None:
        if fresh:
            self._eager_until = self._runtime.clock.monotonic() + _EAGER_SECONDS
        if not self._reading:
            self._reading = True
            self._controller.enqueue_after(READ, 1.0)

    async def _read(self) -> float | None:
        """Of all ports at once; only those that changed are looked at further."""
        plane = await self._host.plane()
        counts, addresses = await plane.counters(), await plane.addresses()
        if not counts:
            self._reading = False
            return None
        for key, interface in self._shown():
            if interface not in counts:
                continue
            told = Readings(counts[interface], tuple(sorted(map(str, addresses.get(interface, ())))))
            if self._readings.get(key) != told:
                self._readings[key] = told
                self._controller.enqueue(key)
            await asyncio.sleep(0)
        waited_for = self._runtime.clock.monotonic() < self._eager_until and any(
            not addresses.get(interface) for interface in counts
        )
        return _SOON_SECONDS if waited_for else READ_SECONDS

    def _shown(self) -> Iterator[tuple[Key, str]]:
        for stored in self._informer:
            interface = (stored.json().get("status") or {}).get("interface")
            if interface is not None:
                yield Key(stored.namespace, stored.name), interface

    async def _failed(self, key: Key, error: CarmelError, count: int) -> None:
        if key == READ:
            # The queue asks again by itself only for what is temporary.
            self._controller.enqueue_after(READ, READ_SECONDS)
            return
        await self._runtime.show_failure(self._resources)(key, error, count)


def rival_keys(spec: Mapping[str, object] | JsonObject) -> list[str]:
    """What of a Port no other on its network may have too."""
    reference, addresses = spec.get("networkRef"), spec.get("addresses")
    network = reference.get("name") if isinstance(reference, dict) else None
    held = [spec.get("mac"), *(addresses if isinstance(addresses, list) else [])]
    return [f"{network}/{one}" for one in held]


def _mirrored(port: JsonObject) -> list[str]:
    target = port["spec"].get("mirrorTo")
    return [f"{port['metadata'].get('namespace')}/{target['name']}"] if target else []


def _is_hosts(port: Port, network: Network, vm: VirtualMachine | None) -> bool:
    """Whether this host is to switch it: by its NIC's own word, else by the Network's."""
    nic = next((one for one in vm.spec.networks if one.name == port.spec.nic), None) if vm is not None else None
    if nic is not None and nic.data_plane is Switch.SMART_NIC:
        return False
    return is_hosted(network)
