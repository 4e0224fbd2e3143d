"""The Ports of a VM: one for each NIC on a network that somebody switches (providers nat and bridge).

They are there as soon as the VM is this host's, running or not, so that a MAC address or an address is given once.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping

from carmel.controllers.runtime import Key, Resources
from carmel.controllers.runtime.informer import Change
from carmel.controllers.virtualmachine.observed import Launched, PortView
from carmel.errors import AlreadyExists, NotFound
from carmel.network.host.check import reserved_addresses
from carmel.network.host.pool import choose_address
from carmel.network.user import mac_address
from carmel.resources.base import JsonObject, LocalReference, ObjectMeta, OwnerReference
from carmel.resources.network import Network, NetworkProvider
from carmel.resources.port import PORT, Port, PortSpec
from carmel.resources.virtualmachine import VIRTUAL_MACHINE, NetworkInterface, VirtualMachine
from carmel.store.protocol import Store


def has_port(network: Network) -> bool:
    return network.spec.provider in {NetworkProvider.NAT, NetworkProvider.BRIDGE}


def port_name(vm: VirtualMachine, nic: str) -> str:
    return f"{vm.metadata.name}-{nic}"


def is_made_for(port: Port, vm: VirtualMachine) -> bool:
    """Not somebody else's that has the name by chance or on purpose: of another VM, or of an earlier one."""
    return port.spec.owner == vm.metadata.uid and port.spec.vm_ref.name == vm.metadata.name


def as_plugged(nic: NetworkInterface, launched: Launched | None) -> NetworkInterface:
    """``nic`` as far as it can be so before the next start of a VM that runs, or is suspended: what QEMU was started
    with stays, and a NIC that moved to another network stays as a whole."""
    before = next((one for one in launched.spec.networks if one.name == nic.name), None) if launched else None
    if before is None:
        return nic
    return before if before.network_ref != nic.network_ref else nic.model_copy(update={"mac": before.mac})


def wanted_spec(vm: VirtualMachine, nic: NetworkInterface, network: Network, before: PortSpec | None) -> PortSpec:
    """What the NIC's Port is to say. Without an address where one is still to be chosen."""
    uid, bridge = vm.metadata.uid or "", network.spec.bridge
    return PortSpec(
        network_ref=LocalReference(name=network.metadata.name),
        vm_ref=LocalReference(name=vm.metadata.name),
        nic=nic.name,
        owner=uid,
        mac=nic.mac or mac_address(uid, nic.name),
        function=before.function if before is not None else None,
        vlan=nic.vlan or (bridge.vlan if bridge is not None else None),
        trunk=nic.trunk,
        addresses=nic.addresses or _kept(network, before),
        source_guard=nic.source_guard is not False,
        limits=nic.limits,
        mirror_to=nic.mirror_to,
    )


def _kept(network: Network, before: PortSpec | None) -> list[str] | None:
    """Of a nat network, the address that was chosen, as long as it is one of the network's."""
    nat = network.spec.nat
    if nat is None or before is None or before.network_ref.name != network.metadata.name:
        return None
    subnet = ipaddress.IPv4Network(nat.subnet)
    usable = set(before.addresses or []) - {str(one) for one in reserved_addresses(subnet)}
    kept = [one for one in before.addresses or [] if one in usable and ipaddress.ip_address(one) in subnet]
    return kept[:1] or None


def wanted_labels(vm: VirtualMachine) -> dict[str, str] | None:
    """Those of the VM, its host among them: where there are no VMs (on a SmartNIC), policies select Ports by them."""
    return dict(vm.metadata.labels or {}) or None


def is_settled(view: PortView, vm: VirtualMachine) -> bool:
    """Whether nothing is to be written."""
    port, wanted = view.port, view.wanted
    if port is None:
        return False
    if not is_made_for(port, vm):
        # It is not this VM's to change; the start waits and says so.
        return True
    addressless = view.chooses and wanted.addresses is None
    return port.spec == wanted and port.metadata.labels == wanted_labels(vm) and not addressless


def concerns_vm(change: Change) -> bool:
    """Whether a Port's change is worth a look at its VM. That it was plugged in or taken out is not, for a start does
    that, and one that failed must not be the reason to try again at once; nor are its counters."""
    if change.old is None or change.new is None:
        return True
    old, new = change.states
    before, after = old.get("status") or {}, new.get("status") or {}
    if before.get("interface") == after.get("interface") and before.get("addresses") != after.get("addresses"):
        return True
    return _wish(old) != _wish(new)


def _wish(port: JsonObject) -> object:
    metadata, conditions = port["metadata"], (port.get("status") or {}).get("conditions") or []
    accepted = [one for one in conditions if one["type"] == "Accepted"]
    return [port["spec"], metadata.get("labels"), metadata.get("deletionTimestamp"), accepted]


class PortsOfMachines:
    """Writes Port resources on behalf of VMs. Each call says what is to be, and may be repeated."""

    def __init__(self, store: Store, ports: Resources[Port]) -> None:
        self._store = store
        self._ports = ports
        self._choosing = asyncio.Lock()

    async def settle(self, vm: VirtualMachine, view: PortView) -> None:
        """Make the Port, or bring it up to date. Raises ``Refused`` (``NoAddressLeft``)."""
        # Nobody else chooses between the look at the addresses that are taken and the write.
        async with self._choosing:
            wanted = view.wanted
            if view.chooses and wanted.addresses is None:
                address = await self._choose(vm, view.network, wanted)
                wanted = wanted.model_copy(update={"addresses": [address]})
            if view.port is None:
                await self._create(vm, wanted)
            else:
                await self._update(vm, view.port, wanted)

    async def drop(self, vm: VirtualMachine, name: str) -> None:
        port = await self._ports.find(Key(vm.metadata.namespace, name))
        if port is not None and is_made_for(port, vm):
            await self._ports.delete(port)

    async def _create(self, vm: VirtualMachine, wanted: PortSpec) -> None:
        owner = OwnerReference(
            api_version=VIRTUAL_MACHINE.api_version,
            kind=VIRTUAL_MACHINE.kind,
            name=vm.metadata.name,
            uid=vm.metadata.uid or "",
        )
        metadata = ObjectMeta(
            name=port_name(vm, wanted.nic),
            namespace=vm.metadata.namespace,
            labels=wanted_labels(vm),
            owner_references=[owner],
        )
        try:
            await self._ports.create(Port(metadata=metadata, spec=wanted))
        except AlreadyExists:
            return

    async def _update(self, vm: VirtualMachine, port: Port, wanted: PortSpec) -> None:
        def change(one: Port) -> None:
            # Whoever binds a function to the port may just have done so.
            one.spec = wanted.model_copy(update={"function": one.spec.function})
            one.metadata.labels = wanted_labels(vm)

        try:
            await self._ports.update(port, change)
        except NotFound:
            return

    async def _choose(self, vm: VirtualMachine, network: Network, wanted: PortSpec) -> str:
        assert network.spec.nat is not None
        own = (vm.metadata.namespace, port_name(vm, wanted.nic))
        taken = {
            ipaddress.IPv4Address(address)
            for stored in (await self._store.list(PORT)).items
            if (stored.namespace, stored.name) != own
            for address in _addresses_on(network.metadata.name, stored.json()["spec"])
        }
        return str(choose_address(ipaddress.IPv4Network(network.spec.nat.subnet), wanted.mac, taken))


def _addresses_on(network: str, spec: Mapping[str, object]) -> list[str]:
    """IPv4 addresses of a Port's spec, as JSON, if it is on ``network``."""
    reference, addresses = spec.get("networkRef"), spec.get("addresses")
    if not isinstance(reference, dict) or reference.get("name") != network or not isinstance(addresses, list):
        return []
    return [one for one in addresses if ":" not in one]
