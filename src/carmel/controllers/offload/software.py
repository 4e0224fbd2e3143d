"""NICs in software on a network that a SmartNIC switches: the host keeps a function, and joins it to the VM's NIC."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Protocol

from carmel.controllers.offload.claims import Claim
from carmel.controllers.virtualmachine.ports import VmOfNics, WantedNic
from carmel.controllers.virtualmachine.taps import queues_of, tap_nic
from carmel.hypervisor.config import NicConfig
from carmel.network.dataplane import DEFAULT_MTU, PortHandles
from carmel.network.names import function_tap_name
from carmel.resources.port import DataPlane
from carmel.resources.virtualmachine import NetworkInterfaceStatus


class Taps(Protocol):
    """Joins functions that the host keeps to NICs in software: ``network.host.functiontaps``."""

    async def join(self, name: str, function: int, alias: str, queues: int, mtu: int) -> PortHandles: ...

    async def part(self, name: str) -> None: ...

    async def keep_only(self, names: Collection[str]) -> None: ...

    async def there(self, name: str) -> bool: ...


class SoftwareNics:
    """What is joined, and what of it is gone."""

    def __init__(self, taps: Taps) -> None:
        self._taps = taps
        self._joined: dict[str, str] = {}
        """Taps by their names, and whose they are, by the VM's uid."""

    async def begin(self, claims: Iterable[Claim]) -> None:
        """What an earlier daemon joined for anything but these goes."""
        known = {_tap_of(one): one.owner for one in claims}
        await self._taps.keep_only(known)
        self._joined = {tap: uid for tap, uid in known.items() if await self._taps.there(tap)}

    async def join(self, vm: VmOfNics, wanted: WantedNic, claim: Claim, index: int, mac: str) -> NicConfig:
        """``index``: of the function's interface. Raises what ``Taps.join`` raises."""
        alias = f"carmel {claim.key} by {claim.function.id} of {claim.function.smart_nic}"
        mtu = wanted.network.spec.mtu or DEFAULT_MTU
        handles = await self._taps.join(_tap_of(claim), index, alias, queues_of(vm, wanted.nic), mtu)
        self._joined[_tap_of(claim)] = vm.uid
        return tap_nic(wanted.nic.name, mac, handles, mtu)

    async def part(self, claim: Claim) -> None:
        """Of one that was passed through there is nothing to do."""
        await self._taps.part(_tap_of(claim))
        self._joined.pop(_tap_of(claim), None)

    async def lost(self, uid: str, nics: Sequence[NetworkInterfaceStatus]) -> Collection[str]:
        """Fulfils ``LostNics``. With its function, or when that gets another driver, the link goes that joins it to a
        NIC in software, and does not come back with it."""
        in_software = [one.name for one in nics if one.function is not None and one.data_plane is DataPlane.HOST]
        return [name for name in in_software if not await self._taps.there(function_tap_name(uid, name))]

    async def to_look_at(self) -> list[str]:
        """The uids of VMs of which a NIC in software has lost its function."""
        return sorted({uid for tap, uid in self._joined.items() if not await self._taps.there(tap)})


def _tap_of(claim: Claim) -> str:
    return function_tap_name(claim.owner, claim.nic)
