"""NICs of VMs on networks that a SmartNIC switches: a function is claimed and plugged in on the NIC; and all undone.

The guest has the function, by vfio-pci; or the host keeps it, and joins it to a NIC in software (``dataPlane: Host``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence

from carmel.controllers.offload.choosing import UNUSABLE, Function, Wish
from carmel.controllers.offload.claims import Claim, Claims
from carmel.controllers.offload.links import Links
from carmel.controllers.offload.plugging import Plugging
from carmel.controllers.offload.software import SoftwareNics
from carmel.controllers.runtime import Key
from carmel.controllers.virtualmachine.nics import close_descriptors
from carmel.controllers.virtualmachine.ports import NicPlan, VmOfNics, WantedNic
from carmel.errors import CarmelError, Refused, Unavailable
from carmel.hypervisor.config import NicConfig
from carmel.resources.port import HOST_OWNER, DataPlane
from carmel.resources.smartnic import FunctionStatus
from carmel.resources.virtualmachine import NetworkInterfaceStatus
from carmel.smartnic.finding import find_again
from carmel.smartnic.hostside import ReadHost
from carmel.smartnic.link import CONNECTING, NicView
from carmel.smartnic.vfio import Functions

_log = logging.getLogger(__name__)

_FOR_THE_NIC = frozenset(
    {"WaitingForSmartNIC", "NICUnreachable", "NoFreeFunction", "WaitingForPort", "FunctionMoved", CONNECTING}
)
"""Codes of what a NIC that is ready, or that was just looked at, may have ended."""


Distances = Callable[[str], Mapping[int, int]]
"""By a VM's uid: how far its memory is from each NUMA node of the host; empty where that is not known."""


class FunctionNics:
    """A ``NicSource``. ``claims`` is the ledger; whoever is killed in between is found in it again."""

    def __init__(
        self,
        claims: Claims,
        links: Links,
        functions: Functions,
        software: SoftwareNics,
        read_host: ReadHost,
        distances: Distances,
    ) -> None:
        self._claims = claims
        self._links = links
        self._functions = functions
        self.software = software
        self._plugging = Plugging(links)
        self._read_host = read_host
        self._distances = distances
        self._locks: dict[str, asyncio.Lock] = {}
        self._owed: set[Key] = set()
        """Ports whose VM ended while their NIC was away."""
        self._not_yet: set[Key] = set()
        """Ports that have a function which is not ready to be plugged in, or never became so."""
        self._waiting: dict[str, tuple[CarmelError, Key]] = {}

    def serves(self, wanted: WantedNic) -> bool:
        return wanted.offloaded

    async def begin(self) -> None:
        """The claims are loaded: what an earlier daemon joined for anything else goes."""
        await self.software.begin(self._claims.all())

    async def plan(self, vm: VmOfNics, wanted: Sequence[WantedNic]) -> Sequence[NicPlan]:
        self._waiting.pop(vm.uid, None)
        plans: list[NicPlan] = []
        try:
            for one in wanted:
                given = await self._plan(vm, one)
                plans.append(given)
        except BaseException:
            close_descriptors(plans)
            raise
        return plans

    async def release(self, uid: str, keep: Collection[str] = ()) -> None:
        for claim in self._claims.of_owner(uid):
            if claim.nic not in keep:
                await self._take_back(claim)

    def owes(self, smart_nic: str) -> bool:
        """Something is still to be unplugged there."""
        return any(claim.key in self._owed for claim in self._claims.of_nic(smart_nic))

    async def settle(self, smart_nic: str) -> None:
        """The NIC can be talked to (again), or says something new: unplug what VMs left behind and what nobody on this
        host knows of, and plug what a port that was made anew has forgotten."""
        for claim in self._claims.of_nic(smart_nic):
            if claim.key in self._owed:
                await self._take_back(claim)
        async with self._lock(smart_nic):
            for port in self._links.view(smart_nic).ports.values():
                key = Key(port.namespace, port.name)
                mine = self._claims.find(key)
                if mine is None and port.bound is not None and port.owner != HOST_OWNER:
                    _log.info("%s of SmartNIC %s is plugged into %s for nobody", port.bound, smart_nic, key)
                    await self._plugging.unplug(smart_nic, key)
                elif mine is not None and port.bound is None and self._forgotten(mine, smart_nic):
                    await self._plugging.plug_again(mine)

    def _forgotten(self, claim: Claim, smart_nic: str) -> bool:
        """It was plugged in there."""
        return claim.function.smart_nic == smart_nic and claim.key not in self._not_yet

    def wake(self, ready: Collection[str]) -> list[str]:
        """The uids of VMs that wait for something that may be there now. ``ready``: the SmartNICs that are."""
        free = [uid for uid, (error, key) in self._waiting.items() if self._may_go_on(error, key, ready)]
        for uid in free:
            del self._waiting[uid]
        return free

    def _may_go_on(self, error: CarmelError, key: Key, ready: Collection[str]) -> bool:
        if error.code == "NoPortOnNIC":
            where = (key.namespace or "", key.name)
            return any(where in self._links.view(name).ports for name in ready)
        return error.code in _FOR_THE_NIC and bool(ready)

    # -- at a start ---------------------------------------------------------------------------------------------
    async def _plan(self, vm: VmOfNics, wanted: WantedNic) -> NicPlan:
        metadata = vm.vm.metadata
        key = Key(metadata.namespace, f"{metadata.name}-{wanted.nic.name}")
        try:
            return await self._give(vm, wanted, key)
        except CarmelError as error:
            self._waiting[vm.uid] = error, key
            raise

    async def _give(self, vm: VmOfNics, wanted: WantedNic, key: Key) -> NicPlan:
        if wanted.network.spec.data_plane is not DataPlane.SMART_NIC:
            raise Refused(
                f"network {wanted.network.metadata.name} is switched by the host, and its uplinks are the host's",
                code="NotOffloaded",
                hint="set the Network's spec.dataPlane to SmartNIC, or leave dataPlane out of the NIC",
                field=f"spec.networks[{wanted.index}].dataPlane",
            )
        mine = self._claims.find(key)
        if mine is not None and not _fits(mine, wanted):
            await self._take_back(mine)
        claim, status = await self._claims.claim(key, self._wish(vm, wanted, key), self._plugged())
        self._owed.discard(key)
        self._not_yet.add(key)
        smart_nic = claim.function.smart_nic
        if status.pci_address is None:
            raise Unavailable(
                f"function {claim.function.id} of SmartNIC {smart_nic} has no address", code="NoFreeFunction"
            )
        await self._plugging.require_port(claim)
        await self._require_there(claim, status)
        hosts = wanted.data_plane is DataPlane.HOST
        if not hosts:
            await self._functions.bind(status.pci_address)
        async with self._lock(smart_nic):
            await self._plugging.plug_in(claim)
            self._not_yet.discard(key)
        mac = await self._plugging.wait_ready(claim)
        if wanted.nic.mac is not None and mac != wanted.nic.mac.lower():
            raise Refused(
                f"SmartNIC {smart_nic} cannot give {claim.function.id} the MAC address {wanted.nic.mac}: it has {mac}",
                code="MACNotPossible",
                hint="leave the NIC's mac out",
                field=f"spec.networks[{wanted.index}].mac",
            )
        if hosts:
            # Only now: the NIC gives a function its MAC address when it is plugged in, and drivers ask for it once.
            index = await self._functions.as_interface(status.pci_address)
            config = await self.software.join(vm, wanted, claim, index, mac)
        else:
            config = NicConfig(wanted.nic.name, mac, {}, function=status.pci_address)
        return NicPlan(
            config=config,
            status=NetworkInterfaceStatus(
                name=wanted.nic.name,
                network_name=wanted.network.metadata.name,
                mac=mac,
                addresses=list(wanted.nic.addresses or ()) or None,
                data_plane=wanted.data_plane,
                function=claim.function.id,
            ),
        )

    def _wish(self, vm: VmOfNics, wanted: WantedNic, key: Key) -> Wish:
        return Wish(
            network=wanted.network,
            mac=wanted.nic.mac,
            before=self._claims.before(key),
            distances=self._distances(vm.uid),
            field=f"spec.networks[{wanted.index}]",
        )

    def _plugged(self) -> dict[Function, Key]:
        found: dict[Function, Key] = {}
        for name in self._links.names():
            found.update(plugged(name, self._links.view(name)))
        return found

    async def _require_there(self, claim: Claim, status: FunctionStatus) -> None:
        """Whatever else the host has is not given away. Raises ``Unavailable`` (``FunctionMoved``)."""
        now, smart_nic = find_again(status, await asyncio.to_thread(self._read_host)), claim.function.smart_nic
        if now.state in UNUSABLE:
            raise Unavailable(
                f"function {claim.function.id} of SmartNIC {smart_nic} is not what it was: {now.message}",
                code="FunctionMoved",
                hint=f"carmel smartnic show {smart_nic}",
            )

    # -- at an end ----------------------------------------------------------------------------------------------
    async def _take_back(self, claim: Claim) -> None:
        """A NIC that is away keeps the function plugged: until it can be told, the function is not free."""
        smart_nic = claim.function.smart_nic
        async with self._lock(smart_nic):
            if self._claims.find(claim.key) != claim:
                return
            await self.software.part(claim)
            if not await self._plugging.unplug(smart_nic, claim.key):
                self._owed.add(claim.key)
                return
            self._owed.discard(claim.key)
            self._not_yet.discard(claim.key)
            await self._claims.free(claim)

    def _lock(self, smart_nic: str) -> asyncio.Lock:
        return self._locks.setdefault(smart_nic, asyncio.Lock())


def plugged(smart_nic: str, view: NicView) -> dict[Function, Key]:
    """What the NIC's ports of VMs say is to be plugged into them."""
    return {
        Function(smart_nic, port.bound): Key(port.namespace, port.name)
        for port in view.ports.values()
        if port.bound is not None
    }


def _fits(claim: Claim, wanted: WantedNic) -> bool:
    """Whether what the Port has is still what is asked for."""
    named, mac = wanted.network.spec.smart_nic_ref, wanted.nic.mac
    same_nic = named is None or named.name == claim.function.smart_nic
    return same_nic and (mac is None or mac.lower() == claim.mac)
