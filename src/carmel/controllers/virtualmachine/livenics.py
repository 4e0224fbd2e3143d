"""NICs that come and go while their VM runs.

What the machine has is asked of the machine. What each NIC was plugged in as is kept with what the VM was started from:
before it is plugged, and until it is unplugged; so whenever the daemon is killed, the next look finds what is missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from carmel.controllers.virtualmachine import ports
from carmel.controllers.virtualmachine.launched import LaunchedSpecs
from carmel.controllers.virtualmachine.nics import close_descriptors
from carmel.controllers.virtualmachine.observed import Launched, NicView, Observed
from carmel.controllers.virtualmachine.steps import PlugNic, Step, UnplugNic
from carmel.controllers.virtualmachine.waiting import nic_waits_for
from carmel.errors import CarmelError
from carmel.hypervisor.machine import Machine, MachineState
from carmel.paths import Paths
from carmel.resources.virtualmachine import NetworkInterface, VirtualMachineSpec

TRY_AGAIN_SECONDS = 60.0
"""After the guest did not let go of a NIC, or a NIC could not be plugged for a reason that may pass."""


_SWITCHED = ("vlan", "trunk", "addresses", "source_guard", "limits", "mirror_to", "data_plane")


def nic_steps(observed: Observed) -> tuple[Step, ...]:
    """The next one that makes the NICs of a running VM those of its spec, as far as that can be done while it runs."""
    return tuple(_steps(observed))[:1]


def _steps(observed: Observed) -> Iterator[Step]:
    machine, launched = observed.live, observed.launched
    if machine is None or launched is None or not _known(observed):
        return
    wanted = {view.nic.name for view in observed.nics}
    started = {nic.name for nic in launched.spec.networks}
    if machine.state is MachineState.RUNNING:
        for name in sorted({*machine.nics, *started} - wanted):
            if name not in observed.nic_refusals:
                yield UnplugNic(name)
    for view in observed.nics:
        name = view.nic.name
        if name in observed.nic_refusals or nic_waits_for(view, observed) is not None:
            continue
        if name not in machine.nics:
            yield PlugNic(name)
        elif machine.state is MachineState.RUNNING and changes_switch(view, observed):
            # It comes again at once, from whoever switches it from now on.
            yield UnplugNic(name)


def changes_switch(view: NicView, observed: Observed) -> bool:
    """Whether the NIC, which is plugged in, is to be switched by another: the host instead of a SmartNIC, or the
    reverse."""
    launched, network = observed.launched, view.network
    if launched is None or network is None:
        return False
    now = next((one.data_plane for one in launched.networks if one.name == view.nic.name), None)
    return now is not None and now is not (view.nic.data_plane or network.spec.data_plane)


def unplugged(observed: Observed) -> list[tuple[str, str]]:
    """What the running VM waits for to have the NICs of its spec: the NIC's name, and a sentence."""
    machine = observed.live
    if machine is None or not _known(observed):
        return []
    found = [(name, refusal.message) for name, refusal in observed.nic_refusals.items()]
    for view in observed.nics:
        due = view.nic.name not in machine.nics or changes_switch(view, observed)
        if due and view.nic.name not in observed.nic_refusals:
            missing = nic_waits_for(view, observed)
            found += [] if missing is None else [(view.nic.name, missing.message or missing.reason)]
    return found


def restart_needed(observed: Observed) -> bool:
    """Whether NICs that are there are wanted otherwise, or some cannot come or go while the VM runs."""
    launched = observed.launched
    if launched is None:
        return False
    was = {nic.name: plugged_as(nic) for nic in launched.spec.networks}
    wanted = {view.nic.name: plugged_as(view.nic) for view in observed.nics}
    if any(was[name] != wanted[name] for name in was.keys() & wanted.keys()):
        return True
    if observed.live is None or not _known(observed):
        return was.keys() != wanted.keys()
    return any(refusal.again is None for refusal in observed.nic_refusals.values())


def plugged_as(nic: NetworkInterface) -> NetworkInterface:
    """Without what its Port has of it: a change of that counts at once."""
    return nic.model_copy(update=dict.fromkeys(_SWITCHED))


def _known(observed: Observed) -> bool:
    """Of a VM that an older Carmel started it is not known which NICs it has."""
    launched = observed.launched
    return observed.live is not None and launched is not None and bool(observed.live.nics or not launched.spec.networks)


@dataclass(frozen=True, slots=True)
class LiveNics:
    """Plugs and unplugs. Each may be repeated."""

    nics: ports.Nics
    launched: LaunchedSpecs
    paths: Paths

    async def plug(self, machine: Machine, observed: Observed, name: str) -> None:
        """Raises ``CarmelError``; then it is not plugged, and what it was given is taken back."""
        uid, before = machine.launch.uid, observed.launched
        index, view = next((number, one) for number, one in enumerate(observed.nics) if one.nic.name == name)
        if before is None or view.network is None:
            return
        try:
            await self._plug(machine, observed, before, index, view)
        except BaseException:
            with contextlib.suppress(CarmelError):
                await self._forget(uid, name)
                await self.nics.release(uid, keep=machine.nics)
            raise

    async def unplug(self, machine: Machine, name: str) -> None:
        """Raises ``CarmelError``; then it is still there."""
        await machine.unplug_nic(name)
        uid = machine.launch.uid
        await self._forget(uid, name)
        await self.nics.release(uid, keep=machine.nics)

    async def _plug(self, machine: Machine, observed: Observed, before: Launched, index: int, view: NicView) -> None:
        vm, uid = observed.vm, machine.launch.uid
        if view.network is None:
            return
        owner = ports.VmOfNics(vm, before.spec, before.networks, self.paths.machine(uid))
        given = await self.nics.plan(owner, [ports.WantedNic(index, view.nic, view.network)])
        try:
            networks = [*(nic for nic in before.spec.networks if nic.name != view.nic.name), view.nic]
            statuses = [one for one in before.networks if one.name != view.nic.name]
            await self.launched.put(
                uid, replace(before, spec=_with(before.spec, networks), networks=(*statuses, given[0].status))
            )
            await machine.plug_nic(given[0].config)
        finally:
            close_descriptors(given)

    async def _forget(self, uid: str, name: str) -> None:
        launched = await self.launched.get(uid)
        if launched is not None:
            networks = [nic for nic in launched.spec.networks if nic.name != name]
            statuses = tuple(one for one in launched.networks if one.name != name)
            await self.launched.put(uid, replace(launched, spec=_with(launched.spec, networks), networks=statuses))


def _with(spec: VirtualMachineSpec, networks: list[NetworkInterface]) -> VirtualMachineSpec:
    return spec.model_copy(update={"networks": networks})
