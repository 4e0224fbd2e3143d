"""NICs and disks that come and go while their VM runs: what the spec wants against what the machine has. Pure.

What the machine has is asked of the machine. What each device was plugged in as is kept with what the VM was started
from: before it is plugged, and until it is unplugged; so whenever the daemon is killed, the next look finds what is
missing. What NICs and disks differ in stands in ``livenics`` and ``livedisks``, the effects in ``hotplug``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from carmel.controllers.virtualmachine.observed import Observed, PlugRefusal
from carmel.controllers.virtualmachine.steps import Plug, Ready, Step, Unplug
from carmel.hypervisor.devices import DeviceKind
from carmel.hypervisor.machine import MachineState
from carmel.resources.virtualmachine import Disk, NetworkInterface


@dataclass(frozen=True, slots=True)
class Wanted:
    """A device of the spec, as what it is plugged in. ``waits_for``: what it cannot come before.

    ``replaced``: it is to be another, so the one that is there goes first.
    """

    device: NetworkInterface | Disk
    waits_for: Ready | None
    replaced: bool = False

    @property
    def name(self) -> str:
        return self.device.name


@dataclass(frozen=True, slots=True)
class LiveDevices:
    """Those of one kind. ``started``: as what they were plugged in, by their names. ``there``: names of those that the
    running machine has."""

    kind: DeviceKind
    observed: Observed
    wanted: tuple[Wanted, ...]
    started: Mapping[str, NetworkInterface | Disk]
    there: tuple[str, ...]

    def next_step(self) -> tuple[Step, ...]:
        """The next one that makes them those of the spec, as far as that can be done while the VM runs."""
        return tuple(self._steps())[:1]

    def waiting(self) -> list[tuple[str, str]]:
        """What the running VM waits for to have those of its spec: the device's name, and a sentence."""
        if not self._known:
            return []
        refusals = self._refusals
        found = [(name, refusal.message) for name, refusal in refusals.items()]
        for one in self.wanted:
            missing = one.waits_for
            due = one.name not in self.there or one.replaced
            if due and one.name not in refusals and missing is not None:
                found.append((one.name, missing.message or missing.reason))
        return found

    def need_restart(self) -> bool:
        """Whether some that are there are wanted otherwise, or some cannot come or go while the VM runs."""
        if self.observed.launched is None:
            return False
        wanted = {one.name: one.device for one in self.wanted}
        if any(self.started[name] != wanted[name] for name in self.started.keys() & wanted.keys()):
            return True
        if not self._known:
            return self.started.keys() != wanted.keys()
        return any(refusal.again is None for refusal in self._refusals.values())

    def _steps(self) -> Iterator[Step]:
        machine, refusals = self.observed.live, self._refusals
        if machine is None or not self._known:
            return
        # A guest that stands still lets go of nothing.
        running = machine.state is MachineState.RUNNING
        if running:
            for name in sorted({*self.there, *self.started} - {one.name for one in self.wanted}):
                if name not in refusals:
                    yield Unplug(self.kind, name)
        for one in self.wanted:
            if one.name in refusals or one.waits_for is not None:
                continue
            if one.name not in self.there:
                yield Plug(self.kind, one.name)
            elif running and one.replaced:
                yield Unplug(self.kind, one.name)

    @property
    def _refusals(self) -> dict[str, PlugRefusal]:
        return {name: refusal for (kind, name), refusal in self.observed.plug_refusals.items() if kind is self.kind}

    @property
    def _known(self) -> bool:
        """Of a VM that an older Carmel started it is not known which it has."""
        observed = self.observed
        return observed.live is not None and observed.launched is not None and bool(self.there or not self.started)
