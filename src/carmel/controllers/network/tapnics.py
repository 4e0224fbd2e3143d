"""NICs on networks that this host switches: taps, whose descriptors QEMU is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from carmel.controllers.network.fitting import require_without
from carmel.controllers.network.hostnetworks import HostNetworks
from carmel.controllers.network.plans import interface_of, network_plan, port_plan
from carmel.controllers.runtime import Key, Runtime
from carmel.controllers.virtualmachine.machineports import has_port, is_made_for, port_name
from carmel.controllers.virtualmachine.nics import close_descriptors
from carmel.controllers.virtualmachine.ports import NicPlan, VmOfNics, WantedNic
from carmel.controllers.virtualmachine.taps import queues_of, tap_nic
from carmel.errors import NotFound, Unavailable
from carmel.network.dataplane import DataPlane, PortHandles, PortPlan
from carmel.resources.network import Network
from carmel.resources.port import PORT, Port
from carmel.resources.port import DataPlane as Switch
from carmel.resources.virtualmachine import NetworkInterfaceStatus, VirtualMachine

_BY_OWNER = "owner"

Gate = Callable[[VirtualMachine], Awaitable[None]]
"""Has the firewall in force. Raises ``Refused`` where the VM's ports would be open that are not to be."""


class TapNics:
    """A ``NicSource``. ``changed`` is told which Ports were plugged in or taken out."""

    def __init__(self, runtime: Runtime, host: HostNetworks, gate: Gate, changed: Callable[[Key], None]) -> None:
        self._host = host
        self._gate = gate
        self._changed = changed
        self._ports = runtime.resources(PORT, Port)
        self._informer = runtime.informer(PORT)
        self._informer.add_index(_BY_OWNER, lambda port: [port["spec"]["owner"]])
        self._given: dict[str, dict[str, tuple[Key, str]]] = {}

    def serves(self, wanted: WantedNic) -> bool:
        return has_port(wanted.network) and not wanted.offloaded

    async def plan(self, vm: VmOfNics, wanted: Sequence[WantedNic]) -> Sequence[NicPlan]:
        for one in wanted:
            require_without(
                one,
                ("forwards",),
                "gives VMs addresses of their own",
                "leave it out, or use a network of provider user",
            )
        plane = await self._host.plane()
        await self._gate(vm.vm)
        plans: list[NicPlan] = []
        try:
            for one in wanted:
                made = await self._plan(plane, vm, one)
                plans.append(made)
        except BaseException:
            close_descriptors(plans)
            raise
        return plans

    async def release(self, uid: str, keep: Collection[str] = ()) -> None:
        if not self._host.begun:
            return
        plane = await self._host.plane()
        attached = await plane.attached()
        for nic, (key, interface) in self._of(uid).items():
            if nic not in keep and interface in attached:
                await plane.detach(interface)
                self._changed(key)
        given = {nic: port for nic, port in self._given.pop(uid, {}).items() if nic in keep}
        if given:
            self._given[uid] = given

    def _of(self, uid: str) -> Mapping[str, tuple[Key, str]]:
        """The VM's ports by NIC: those that this daemon gave, and those that an earlier one may have given."""
        found = {}
        for key in self._informer.indexed(_BY_OWNER, uid):
            stored = self._informer.get(key)
            if stored is not None:
                port = self._ports.parse(stored)
                found[port.spec.nic] = (key, interface_of(port))
        return {**found, **self._given.get(uid, {})}

    async def _plan(self, plane: DataPlane, vm: VmOfNics, wanted: WantedNic) -> NicPlan:
        nic, network = wanted.nic, wanted.network
        key = Key(vm.vm.metadata.namespace, port_name(vm.vm, nic.name))
        port = await self._ports.find(key)
        if port is None or not is_made_for(port, vm.vm):
            raise Unavailable(f"Port {key.name} is not there yet", code="WaitingForPort")
        queues = queues_of(vm, nic)
        plan = port_plan(port, mirror=await self._mirror(port))
        self._given.setdefault(vm.uid, {})[nic.name] = (key, plan.interface)
        handles = await _attach(plane, network, plan, queues)
        self._changed(key)
        return NicPlan(
            tap_nic(nic.name, plan.mac, handles, network_plan(network).mtu),
            NetworkInterfaceStatus(
                name=nic.name,
                network_name=network.metadata.name,
                mac=plan.mac,
                addresses=[str(one) for one in plan.addresses] or None,
                data_plane=Switch.HOST,
            ),
        )

    async def _mirror(self, port: Port) -> Port | None:
        target = port.spec.mirror_to
        return None if target is None else await self._ports.find(Key(port.metadata.namespace, target.name))


async def _attach(plane: DataPlane, network: Network, plan: PortPlan, queues: int) -> PortHandles:
    try:
        return await plane.attach(plan, queues)
    except NotFound:
        pass
    # It was there before this daemon, or this boot, and is not made again yet.
    await plane.ensure_network(network_plan(network))
    return await plane.attach(plan, queues)
