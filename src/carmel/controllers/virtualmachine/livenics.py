"""NICs that come and go while their VM runs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from carmel.controllers.virtualmachine import ports
from carmel.controllers.virtualmachine.hotplug import Offer
from carmel.controllers.virtualmachine.livedevices import LiveDevices, Wanted
from carmel.controllers.virtualmachine.nics import close_descriptors
from carmel.controllers.virtualmachine.observed import Launched, NicView, Observed
from carmel.controllers.virtualmachine.waiting import nic_waits_for
from carmel.hypervisor.devices import DeviceKind
from carmel.hypervisor.machine import Machine
from carmel.paths import Paths
from carmel.resources.port import DataPlane
from carmel.resources.virtualmachine import NetworkInterface, NetworkInterfaceStatus

_SWITCHED = ("vlan", "trunk", "addresses", "source_guard", "limits", "mirror_to", "data_plane")


def live_nics(observed: Observed) -> LiveDevices:
    launched, machine = observed.launched, observed.live
    return LiveDevices(
        kind=DeviceKind.NIC,
        observed=observed,
        wanted=tuple(
            Wanted(plugged_as(view.nic), nic_waits_for(view, observed), view.lost or changes_switch(view, observed))
            for view in observed.nics
        ),
        started={nic.name: plugged_as(nic) for nic in launched.spec.networks} if launched is not None else {},
        there=machine.nics if machine is not None else (),
    )


def changes_switch(view: NicView, observed: Observed) -> bool:
    """Whether the NIC, which is plugged in, is to be switched by another (the host instead of a SmartNIC, or the
    reverse), or a function is to be in software instead of passed through, or the reverse. It comes again at once."""
    launched, network = observed.launched, view.network
    if launched is None or network is None:
        return False
    now = next((one for one in launched.networks if one.name == view.nic.name), None)
    if now is None or now.data_plane is None:
        return False
    wanted = view.nic.data_plane or network.spec.data_plane
    offloaded = now.function is not None or now.data_plane is DataPlane.SMART_NIC
    return now.data_plane is not wanted or offloaded is not (network.spec.data_plane is DataPlane.SMART_NIC)


def plugged_as(nic: NetworkInterface) -> NetworkInterface:
    """Without what its Port has of it: a change of that counts at once."""
    return nic.model_copy(update=dict.fromkeys(_SWITCHED))


@dataclass(frozen=True, slots=True)
class PluggableNics:
    """Given by whoever realises their Networks."""

    nics: ports.Nics
    paths: Paths

    @contextlib.asynccontextmanager
    async def offer(self, machine: Machine, observed: Observed, name: str) -> AsyncIterator[Offer | None]:
        index, view = next((number, one) for number, one in enumerate(observed.nics) if one.nic.name == name)
        before = observed.launched
        if before is None or view.network is None:
            yield None
            return
        owner = ports.VmOfNics(observed.vm, before.spec, before.networks, self.paths.machine(machine.launch.uid))
        given = await self.nics.plan(owner, [ports.WantedNic(index, view.nic, view.network)])
        try:
            nic = given[0]
            yield Offer(lambda launched: _with(launched, view.nic, nic.status), lambda: machine.plug_nic(nic.config))
        finally:
            close_descriptors(given)

    async def unplug(self, machine: Machine, name: str) -> None:
        await machine.unplug_nic(name)

    def without(self, launched: Launched, name: str) -> Launched:
        return _without(launched, name)

    async def release(self, machine: Machine) -> None:
        await self.nics.release(machine.launch.uid, keep=machine.nics)


def _with(launched: Launched, nic: NetworkInterface, status: NetworkInterfaceStatus) -> Launched:
    others = _without(launched, nic.name)
    spec = others.spec.model_copy(update={"networks": [*others.spec.networks, nic]})
    return replace(others, spec=spec, networks=(*others.networks, status))


def _without(launched: Launched, name: str) -> Launched:
    networks = [nic for nic in launched.spec.networks if nic.name != name]
    statuses = tuple(one for one in launched.networks if one.name != name)
    return replace(launched, spec=launched.spec.model_copy(update={"networks": networks}), networks=statuses)
