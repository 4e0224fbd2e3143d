"""Does the steps of a plan. Each may be repeated: a step that finds its work done does nothing."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from carmel.controllers.placement import Places
from carmel.controllers.runtime import EventKind, EventRecorder, Resources, condition, error_message, set_conditions
from carmel.controllers.virtualmachine.hotplug import HotPlug
from carmel.controllers.virtualmachine.launched import LaunchedSpecs
from carmel.controllers.virtualmachine.launching import Launcher
from carmel.controllers.virtualmachine.machineports import PortsOfMachines
from carmel.controllers.virtualmachine.observed import FINALIZER, HOST_LABEL, Observed
from carmel.controllers.virtualmachine.observing import Observer
from carmel.controllers.virtualmachine.steps import (
    AttachVolume,
    Claim,
    Collect,
    CreateVolume,
    DetachVolume,
    DropPort,
    DropSavedState,
    Kill,
    Launch,
    Pause,
    Plug,
    PressButton,
    RecordEnd,
    Remove,
    Repin,
    Reserve,
    Resume,
    SettlePort,
    Step,
    Suspend,
    Unplug,
)
from carmel.controllers.virtualmachine.volumes import VolumesOfMachines, volume_name
from carmel.errors import CarmelError
from carmel.hypervisor.devices import DeviceKind
from carmel.hypervisor.files import remove
from carmel.hypervisor.machine import Hypervisor, Machine, MachineState
from carmel.paths import Paths
from carmel.resources.virtualmachine import (
    VIRTUAL_MACHINE,
    PowerState,
    Termination,
    TerminationReason,
    VirtualMachine,
)

_WORDS = {DeviceKind.NIC: "NIC", DeviceKind.DISK: "Disk"}
_NORMAL_ENDS = frozenset({TerminationReason.GUEST_SHUTDOWN, TerminationReason.HOST_REQUEST})


@dataclass(frozen=True, slots=True)
class Actor:
    """The effects of VirtualMachine plans."""

    vms: Resources[VirtualMachine]
    volumes: VolumesOfMachines
    ports: PortsOfMachines
    hypervisor: Hypervisor
    launcher: Launcher
    hot_plug: HotPlug
    launched: LaunchedSpecs
    observer: Observer
    places: Places
    events: EventRecorder
    paths: Paths

    async def do(self, step: Step, observed: Observed) -> None:
        """Raises ``CarmelError``: what was done before it stays done, and the next pass goes on from there."""
        vm = observed.vm
        match step:
            case Claim():
                await self._claim(vm, observed.host.name)
            case CreateVolume(disk, name):
                await self.volumes.create(vm, disk, name)
            case AttachVolume(name):
                stale = next((one.volume for one in observed.disks if one.volume_name == name), None)
                await self.volumes.attach(vm, name, stale_holder=stale.status.used_by if stale is not None else None)
            case DetachVolume(name):
                await self._detach(vm, name)
            case SettlePort() | DropPort():
                await self._port(step, observed)
            case Plug() | Unplug():
                await self._plug(step, observed)
            case RecordEnd(termination):
                await self._record_end(vm, termination)
            case DropSavedState():
                await asyncio.to_thread(remove, self.paths.machine(vm.metadata.uid or "").saved_state)
            case Reserve(request, impossible):
                self.places.reserve(request, impossible)
            case Launch():
                await self._launch(observed, step)
            case Remove():
                await self._remove(vm)
            case _:
                await self._drive(step, vm)

    async def _port(self, step: SettlePort | DropPort, observed: Observed) -> None:
        if isinstance(step, DropPort):
            await self.ports.drop(observed.vm, step.name)
            return
        view = next(one.port for one in observed.nics if one.nic.name == step.nic)
        if view is not None:
            await self.ports.settle(observed.vm, view)

    async def _plug(self, step: Plug | Unplug, observed: Observed) -> None:
        """What stands against it is told and remembered: the VM runs, and is not to look as if it did not."""
        vm, kind, name = observed.vm, step.kind, step.name
        machine = self.hypervisor.machine(vm.metadata.uid or "")
        if machine is None:
            return
        word = _WORDS[kind]
        done = "Plugged" if isinstance(step, Plug) else "Unplugged"
        try:
            if isinstance(step, Plug):
                await self.hot_plug.plug(machine, observed, kind, name)
            else:
                await self.hot_plug.unplug(machine, kind, name)
        except CarmelError as error:
            self.observer.plug_refused(vm, machine, kind, name, error)
            self._tell(vm, f"{word}Not{done}", error_message(error), EventKind.WARNING)
            return
        self.observer.devices_changed(machine)
        changed = isinstance(step, Plug) and kind is DeviceKind.NIC
        self._tell(vm, f"{word}{done}", await self._nic_plugged(vm, name) if changed else f"{word} {name}")

    async def _nic_plugged(self, vm: VirtualMachine, nic: str) -> str:
        """With its MAC address, if the guest has known it by another."""
        launched = await self.launched.get(vm.metadata.uid or "")
        now = next((one.mac for one in (launched.networks if launched is not None else ()) if one.name == nic), None)
        before = next((one.mac for one in vm.status.networks or () if one.name == nic), None)
        if now is None or before is None or now == before:
            return f"NIC {nic}"
        return f"NIC {nic}, whose MAC address is {now} now: it was {before}"

    async def _drive(self, step: Step, vm: VirtualMachine) -> None:
        """Steps that a running machine takes. One that ended meanwhile is the next look's business."""
        machine = self.hypervisor.machine(vm.metadata.uid or "")
        if machine is None:
            return
        match step:
            case Repin():
                await self._repin(vm, machine)
            case Resume():
                await machine.resume()
                self.observer.resumed(machine)
            case Pause():
                await machine.pause()
                self.observer.paused(machine)
            case Suspend():
                await machine.suspend()
                self._tell(vm, "Suspended", "the VM's memory was saved")
            case PressButton():
                await machine.request_shutdown()
                self.observer.button_pressed(machine)
            case Kill(reason):
                await self._record_end(vm, await machine.kill(reason))
            case Collect():
                await self._collect(vm, machine)
        self.places.ended(machine.launch.uid)

    async def _claim(self, vm: VirtualMachine, host: str) -> None:
        def claim(one: VirtualMachine) -> None:
            one.metadata.labels = {**(one.metadata.labels or {}), HOST_LABEL: host}
            if FINALIZER not in (one.metadata.finalizers or []):
                one.metadata.finalizers = [*(one.metadata.finalizers or []), FINALIZER]

        await self.vms.update(vm, claim)

    async def _detach(self, vm: VirtualMachine, name: str) -> None:
        await self.volumes.detach(vm, name)

        def strike(one: VirtualMachine) -> None:
            one.status.disks = [disk for disk in one.status.disks or [] if disk.volume_name != name] or None

        await self.vms.update_status(vm, strike)

    async def _launch(self, observed: Observed, step: Launch) -> None:
        vm = observed.vm

        def count(one: VirtualMachine) -> None:
            one.status.restart_count = step.restarts or None

        # Before the start: a VM that takes the daemon down with it must not be started without end.
        await self.vms.update_status(vm, count)
        await self.launcher.launch(observed, step)
        self._tell(vm, "Started", "the VM was started from its saved memory" if step.restore else "the VM was started")

    async def _repin(self, vm: VirtualMachine, machine: Machine) -> None:
        try:
            await self.places.mover.settle(machine)
        except CarmelError as error:
            # It runs on, if not where it is best: that must not look like a VM that does not.
            self._tell(vm, "RepinFailed", error_message(error), EventKind.WARNING)

    async def _collect(self, vm: VirtualMachine, machine: Machine) -> None:
        launch = machine.launch
        known = {
            MachineState.SHUTDOWN: TerminationReason.GUEST_SHUTDOWN,
            MachineState.PANICKED: TerminationReason.GUEST_PANIC,
        }.get(machine.state)
        if known is not None:
            # Collecting removes what the run left, and with it what it says: whether it is restarted depends on that.
            await self._record_end(
                vm,
                Termination(
                    reason=known,
                    launch_id=launch.launch_id,
                    started_at=launch.started_at,
                    finished_at=self.observer.clock.now(),
                ),
                tell=False,
            )
        await self._record_end(vm, await machine.collect())

    async def _record_end(self, vm: VirtualMachine, termination: Termination, *, tell: bool = True) -> None:
        def ended(one: VirtualMachine) -> None:
            one.status.launch_id = termination.launch_id
            one.status.power_state = PowerState.OFF
            set_conditions(
                one.status,
                [condition("Ready", "False", "Ended", generation=one.metadata.generation)],
                self.observer.clock.now(),
            )
            one.status.last_termination = termination.model_copy(
                update={
                    "started_at": termination.started_at and termination.started_at.replace(microsecond=0),
                    "finished_at": termination.finished_at and termination.finished_at.replace(microsecond=0),
                }
            )

        await self.vms.update_status(vm, ended)
        if tell:
            kind = EventKind.NORMAL if termination.reason in _NORMAL_ENDS else EventKind.WARNING
            said = f": {termination.message}" if termination.message else ""
            self._tell(vm, "Ended", f"{termination.reason.value}{said}", kind)

    async def _remove(self, vm: VirtualMachine) -> None:
        uid = vm.metadata.uid or ""
        await self.hypervisor.forget(uid)
        self.launched.forget(uid)
        self.observer.forget(uid)
        names = {volume_name(vm, disk) for disk in vm.spec.disks}
        names |= {disk.volume_name for disk in vm.status.disks or []}
        await self.volumes.release_all(vm, sorted(names))
        await self.vms.remove_finalizer(vm, FINALIZER)

    def _tell(self, vm: VirtualMachine, reason: str, message: str, kind: EventKind = EventKind.NORMAL) -> None:
        self.events.record(VIRTUAL_MACHINE, vm, kind, reason, message, component="virtualmachine-controller")
