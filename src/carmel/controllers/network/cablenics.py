"""Plans NICs on networks of provider cable, and keeps the folders that their sockets lie in."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from carmel.controllers.network.fitting import SWITCHED, require_without
from carmel.controllers.runtime import Resources, Runtime
from carmel.controllers.virtualmachine.observed import HOST_LABEL
from carmel.controllers.virtualmachine.ports import NicPlan, VmOfNics, WantedNic
from carmel.hypervisor.config import NicConfig
from carmel.network import cable, cabling
from carmel.network.cable import End
from carmel.network.user import mac_address
from carmel.paths import Paths
from carmel.resources.network import NetworkProvider
from carmel.resources.selectors import Requirement, Selector
from carmel.resources.virtualmachine import (
    VIRTUAL_MACHINE,
    NetworkInterface,
    NetworkInterfaceStatus,
    VirtualMachine,
)


class CableNics:
    """A ``NicSource``: networks of provider cable. Who is joined is decided from the VMs of this host alone."""

    def __init__(self, runtime: Runtime, paths: Paths, group: int | None) -> None:
        """``group``: that of QEMU's account; ``None``: it runs as the daemon's own user."""
        self._own_group = group
        self._here = Selector((Requirement(HOST_LABEL, frozenset({runtime.host})),))
        self._vms: Resources[VirtualMachine] = runtime.resources(VIRTUAL_MACHINE, VirtualMachine, manager="cable")
        self._folders = paths.cables
        self._lock = asyncio.Lock()

    def serves(self, wanted: WantedNic) -> bool:
        return wanted.network.spec.provider is NetworkProvider.CABLE

    async def plan(self, vm: VmOfNics, wanted: Sequence[WantedNic]) -> Sequence[NicPlan]:
        for one in wanted:
            require_without(
                one,
                ("forwards", "queues", *SWITCHED),
                "is a cable, which switches nothing",
                "leave it out, or use a network of provider bridge",
            )
        vms = await self._vms.list(None, self._here)
        others = [other for other in vms if other.metadata.uid != vm.uid]
        starting = vm.vm.model_copy(update={"spec": vm.spec})
        async with self._lock:
            for network in {one.network.metadata.name for one in wanted}:
                users = [end for end in (_end(each, network) for each in (*others, starting)) if end is not None]
                cable.check(network, vm.uid, users)
                await asyncio.to_thread(
                    cabling.lay, self._folders / cable.folder_name(network), users, self._group(network)
                )
        return [self._plan(vm.uid, one) for one in wanted]

    async def release(self, uid: str, keep: Collection[str] = ()) -> None:
        async with self._lock:
            await asyncio.to_thread(cabling.clear, self._folders, uid, keep)

    def _plan(self, uid: str, wanted: WantedNic) -> NicPlan:
        name, network = wanted.nic.name, wanted.network.metadata.name
        mac = _mac(uid, wanted.nic)
        folder = self._folders / cable.folder_name(network)
        return NicPlan(
            config=NicConfig(name, mac, cable.netdev(folder, uid, name), group=self._group(network)),
            status=NetworkInterfaceStatus(name=name, network_name=network, mac=mac),
        )

    def _group(self, network: str) -> int | None:
        own = self._own_group
        return None if own is None else cabling.usable_group(cable.group_of(network), own)


def _end(vm: VirtualMachine, network: str) -> End | None:
    uid = vm.metadata.uid or ""
    nics = {nic.name: _mac(uid, nic) for nic in vm.spec.networks if nic.network_ref.name == network}
    if not nics or vm.metadata.deletion_timestamp is not None:
        return None
    created = vm.metadata.creation_timestamp
    since = created.isoformat() if created is not None else ""
    return End(uid, f"{vm.metadata.namespace}/{vm.metadata.name}", since, nics)


def _mac(uid: str, nic: NetworkInterface) -> str:
    return nic.mac or mac_address(uid, nic.name)
