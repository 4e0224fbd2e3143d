"""Pure: from what was seen of a VM to the next steps.

A plan goes one step of power at a time: after it everything is looked at again. So there is no plan that can be half
done; whatever happened to the daemon in between, the next look decides anew.
"""

from __future__ import annotations

from dataclasses import replace

from carmel.controllers.placement.words import refusal_sentence
from carmel.controllers.virtualmachine.livedisks import live_disks
from carmel.controllers.virtualmachine.livenics import live_nics
from carmel.controllers.virtualmachine.machineports import is_settled
from carmel.controllers.virtualmachine.observed import FINALIZER, HOST_LABEL, LIVE, MachineView, Observed
from carmel.controllers.virtualmachine.restarts import Start, StartLater, StayOff, decide_start, restart_pending
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
    Plan,
    PressButton,
    Ready,
    RecordEnd,
    Remove,
    Repin,
    Reserve,
    Resume,
    SettlePort,
    Step,
    Suspend,
)
from carmel.controllers.virtualmachine.waiting import made_for, refusals, start_waits_for
from carmel.hypervisor.machine import MachineState
from carmel.resources.virtualmachine import (
    DeletePolicy,
    Disk,
    PowerOffMode,
    PowerState,
    Termination,
    TerminationReason,
)

PRESS_AGAIN_SECONDS = 10.0
"""A guest that is still starting does not hear its power button: it is pressed again."""
PATIENT_PRESS_SECONDS = 60.0
"""The same after powerOffTimeoutSeconds, for mode Soft, which never pulls the plug."""
RESUMING_SECONDS = 1.0
"""How long it may take until a VM that was let run is seen to run."""
RESUME_AGAIN_SECONDS = 10.0
"""QEMU pauses a VM whose disk cannot be written (``werror=enospc``): it is tried again this often."""

PAUSED = Ready(False, "Paused")
STOPPING = Ready(False, "Stopping", "the guest was asked to power off")
DELETING = Ready(False, "Deleting", "the VM is being deleted")


def make_plan(observed: Observed) -> Plan:
    """The next steps for one VM of this host (or of none yet)."""
    if observed.vm.metadata.deletion_timestamp is not None:
        return _deletion(observed)
    if not _claimed(observed):
        if observed.host.unschedulable:
            return Plan(Ready(False, "HostUnschedulable", f"host {observed.host.name} takes no VMs"))
        return Plan(Ready(False, "Placing"), (Claim(),))
    machine = observed.machine
    if machine is not None and machine.state not in LIVE:
        return Plan(Ready(False, "Ended"), (Collect(),))
    lost = _lost_run(observed)
    if lost is not None:
        return Plan(Ready(False, "Ended"), (RecordEnd(lost),))
    refused = machine is None and next(refusals(observed), None) is not None
    volumes = (*(() if refused else _volume_steps(observed)), *_detachments(observed))
    if volumes:
        return Plan(Ready(False, "Preparing"), volumes)
    ports = () if refused else _port_steps(observed)
    if machine is not None:
        plan = _running(observed, machine)
        # Whatever stands against a port, a NIC or a disk, it does not stand against power.
        return plan if plan.steps else _with_devices(plan, observed, ports)
    return Plan(Ready(False, "Preparing"), ports) if ports else _resting(observed)


def _with_devices(plan: Plan, observed: Observed, ports: tuple[Step, ...]) -> Plan:
    """Ports, NICs and disks of a VM that runs, or stands still as it is to."""
    steps = ports
    if not steps and (plan.ready.ok or plan.ready == PAUSED):
        steps = live_nics(observed).next_step() or live_disks(observed).next_step()
    again = [one.again for one in observed.plug_refusals.values() if one.again is not None]
    if plan.look_again is not None:
        again.append(plan.look_again)
    return replace(plan, steps=steps, look_again=min(again, default=None))


def default_policy(disk: Disk) -> DeletePolicy:
    """What becomes of a disk's volume with its VM."""
    if disk.delete_policy is not None:
        return disk.delete_policy
    return DeletePolicy.RETAIN if disk.volume_ref is not None else DeletePolicy.DELETE


def _claimed(observed: Observed) -> bool:
    metadata = observed.vm.metadata
    return (metadata.labels or {}).get(HOST_LABEL) == observed.host.name and FINALIZER in (metadata.finalizers or [])


# -- volumes ------------------------------------------------------------------------------------------------------
def _volume_steps(observed: Observed) -> tuple[Step, ...]:
    steps: list[Step] = []
    for view in observed.disks:
        volume = view.volume
        if volume is None:
            if view.disk.volume_ref is None:
                steps.append(CreateVolume(view.disk, view.volume_name))
            continue
        ours = view.disk.volume_ref is not None or made_for(view, observed.vm.metadata.uid)
        free = volume.status.used_by is None or not view.holder_alive
        held = volume.status.used_by == observed.vm.metadata.name
        if ours and free and not held and volume.metadata.deletion_timestamp is None:
            steps.append(AttachVolume(view.volume_name))
    return tuple(steps)


def _detachments(observed: Observed) -> tuple[Step, ...]:
    """Volumes that left the spec, unless the VM still runs with them."""
    machine, launched = observed.machine, observed.launched
    if observed.saved or (machine is not None and launched is None):
        return ()
    there: set[str] = set()
    if machine is not None and launched is not None:
        there = {*machine.disks, *(disk.name for disk in launched.spec.disks)}
    held = {disk.volume_name for disk in observed.vm.status.disks or [] if disk.name in there}
    return tuple(DetachVolume(name) for name in observed.former_volumes if name not in held)


# -- ports --------------------------------------------------------------------------------------------------------
def _port_steps(observed: Observed) -> tuple[Step, ...]:
    unsettled = [
        SettlePort(view.nic.name)
        for view in observed.nics
        if view.port is not None and not is_settled(view.port, observed.vm)
    ]
    return (*unsettled, *(DropPort(name) for name in observed.former_ports))


# -- a VM that does not run ---------------------------------------------------------------------------------------
def _resting(observed: Observed) -> Plan:
    wanted = observed.vm.spec.power_state
    if wanted is PowerState.OFF:
        return Plan(Ready(False, "PoweredOff"), (DropSavedState(),) if observed.saved else ())
    if wanted is PowerState.SUSPENDED:
        if observed.saved:
            return Plan(Ready(False, "Suspended"))
        return Plan(Ready(False, "PoweredOff", "a VM that does not run cannot be suspended"))
    restart = restart_pending(observed.vm.spec, observed.vm.status, None)
    if restart and observed.saved:
        return Plan(Ready(False, "Starting"), (DropSavedState(),))
    decision = decide_start(observed)
    if isinstance(decision, StayOff):
        return Plan(Ready(False, decision.reason, decision.message))
    refused = next(refusals(observed), None)
    if refused is not None:
        return Plan(refused, wants_place=True)
    missing = start_waits_for(observed)
    if missing is not None:
        return Plan(missing)
    if isinstance(decision, StartLater):
        return Plan(Ready(False, "CrashLoopBackOff", decision.message), look_again=decision.seconds)
    assert isinstance(decision, Start)
    place = observed.place
    if place.refusal is not None:
        return Plan(Ready(False, place.refusal.code, refusal_sentence(place.refusal)), wants_place=True)
    if place.placement is None and place.request is not None:
        return Plan(Ready(False, "Placing"), (Reserve(place.request, place.impossible),), wants_place=True)
    launch = Launch(paused=wanted is PowerState.PAUSED, restore=observed.saved, restarts=decision.restarts)
    return Plan(Ready(False, "Starting"), (launch,), wants_place=True)


def _lost_run(observed: Observed) -> Termination | None:
    """The end of a run that the status knows and nothing else: its record went with what ended it."""
    status, spec = observed.vm.status, observed.vm.spec
    known = status.last_termination is not None and status.last_termination.launch_id == status.launch_id
    if observed.machine is not None or observed.saved or status.launch_id is None or known:
        return None
    launched = observed.launched
    asked = spec.power_state in {PowerState.OFF, PowerState.SUSPENDED}
    if launched is not None and launched.boot_id and observed.host.boot_id not in {"", launched.boot_id}:
        reason, message = TerminationReason.HOST_REBOOT, "the host was started anew"
    elif asked or restart_pending(spec, status, None):
        reason, message = TerminationReason.HOST_REQUEST, "the VM was ended as asked"
    else:
        reason, message = TerminationReason.UNKNOWN, "the VM was found gone, its launch record too"
    return Termination(
        reason=reason,
        message=message,
        launch_id=status.launch_id,
        started_at=status.started_at,
        finished_at=observed.now,
    )


# -- a VM that runs -----------------------------------------------------------------------------------------------
def _running(observed: Observed, machine: MachineView) -> Plan:
    spec = observed.vm.spec
    wanted = spec.power_state
    if wanted is PowerState.OFF:
        return _power_off(observed, machine, spec.power_off_mode)
    launched = observed.launched.spec if observed.launched is not None else None
    if wanted is not PowerState.SUSPENDED and restart_pending(spec, observed.vm.status, launched):
        return _power_off(observed, machine, spec.power_off_mode)
    if wanted is PowerState.SUSPENDED:
        return Plan(Ready(False, "Suspending"), (Suspend(),))
    if observed.saved:
        # The machine is what is true; a saved state beside it is older, and would undo what the disks have seen since.
        return Plan(Ready(False, "Resuming"), (DropSavedState(),))
    if observed.place.astray:
        return Plan(Ready(True, "Running"), (Repin(),))
    if wanted is PowerState.PAUSED:
        return Plan(PAUSED, (Pause(),) if machine.state is MachineState.RUNNING else ())
    if machine.state is MachineState.PAUSED:
        return _resume(observed, Ready(False, "Resuming"))
    return Plan(Ready(True, "Running"))


def _resume(observed: Observed, ready: Ready) -> Plan:
    since = observed.monotonic - observed.resumed if observed.resumed is not None else None
    if since is not None and since < RESUMING_SECONDS:
        return Plan(ready, look_again=RESUMING_SECONDS - since)
    if since is not None and since < RESUME_AGAIN_SECONDS:
        message = "QEMU paused the VM by itself, most likely because its datastore is full: make room there"
        return Plan(Ready(False, "PausedByError", message), look_again=RESUME_AGAIN_SECONDS - since)
    return Plan(ready, (Resume(),))


def _power_off(observed: Observed, machine: MachineView, mode: PowerOffMode) -> Plan:
    if mode is PowerOffMode.HARD:
        return Plan(STOPPING, (Kill("powered off as asked"),))
    if machine.state is MachineState.PAUSED:
        # A guest that stands still hears no button.
        return _resume(observed, STOPPING)
    timeout = float(observed.vm.spec.power_off_timeout_seconds)
    pressed = observed.pressed
    if pressed is None:
        return Plan(STOPPING, (PressButton(),))
    waited, since_last = observed.monotonic - pressed.first, observed.monotonic - pressed.last
    if waited >= timeout and mode is PowerOffMode.TRY_SOFT:
        return Plan(STOPPING, (Kill(f"powered off: the guest did not within {timeout:g} s"),))
    ready, interval = STOPPING, PRESS_AGAIN_SECONDS
    if waited >= timeout:
        ready = Ready(
            False,
            "GuestDoesNotStop",
            f"the guest did not power off within {timeout:g} s: set powerOffMode to Hard to pull the plug",
        )
        interval = PATIENT_PRESS_SECONDS
    if since_last >= interval:
        return Plan(ready, (PressButton(),))
    again = interval - since_last
    if waited < timeout:
        again = min(again, timeout - waited)
    return Plan(ready, look_again=max(again, 0.05))


# -- the end ------------------------------------------------------------------------------------------------------
def _deletion(observed: Observed) -> Plan:
    if FINALIZER not in (observed.vm.metadata.finalizers or []):
        return Plan(DELETING)
    machine = observed.machine
    if machine is None:
        return Plan(DELETING, (Remove(),))
    if machine.state not in LIVE:
        return Plan(DELETING, (Collect(),))
    keeps = any(default_policy(disk) is DeletePolicy.RETAIN for disk in observed.vm.spec.disks)
    mode = observed.vm.spec.power_off_mode
    if not keeps or mode is PowerOffMode.HARD:
        return Plan(DELETING, (Kill("the VM was deleted"),))
    # A disk stays, so the guest may write it out; but a deletion must come to its end.
    return _power_off(observed, machine, PowerOffMode.TRY_SOFT)
