"""From what is seen to the next step: one table a subject."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from carmel.controllers.runtime import condition
from carmel.controllers.virtualmachine.machineports import wanted_spec
from carmel.controllers.virtualmachine.observed import (
    HOST_LABEL,
    ButtonPress,
    DiskView,
    HostView,
    NicView,
    Observed,
    PortView,
)
from carmel.controllers.virtualmachine.planning import make_plan
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
    PressButton,
    RecordEnd,
    Remove,
    Resume,
    SettlePort,
    Step,
    Suspend,
)
from carmel.hypervisor.machine import MachineState
from carmel.resources.base import Condition, LocalReference, ObjectMeta
from carmel.resources.network import Network, NetworkProvider, NetworkSpec, NetworkStatus
from carmel.resources.port import Port, PortStatus
from carmel.resources.virtualmachine import Disk, NetworkInterface, TerminationReason
from carmel.resources.volume import Volume, VolumePhase, VolumeSpec, VolumeStatus
from tests.fakes.clock import START
from tests.unit.controllers.virtualmachine.seen import HOST, end, running, seen, vm

COLD = Launch(paused=False, restore=False, restarts=0)
ON, OFF, PAUSED, SUSPENDED = "PoweredOn", "PoweredOff", "Paused", "Suspended"


def only_step(observed: Observed) -> Step | None:
    steps = make_plan(observed).steps
    assert len(steps) <= 1
    return steps[0] if steps else None


@pytest.mark.parametrize(
    ("wanted", "saved", "expected"),
    [
        (ON, False, COLD),
        (ON, True, Launch(paused=False, restore=True, restarts=0)),
        (PAUSED, False, Launch(paused=True, restore=False, restarts=0)),
        (PAUSED, True, Launch(paused=True, restore=True, restarts=0)),
        (SUSPENDED, False, None),
        (SUSPENDED, True, None),
        (OFF, False, None),
        (OFF, True, DropSavedState()),
    ],
)
def test_without_a_machine(wanted: str, saved: bool, expected: Step | None) -> None:
    assert only_step(seen(vm(powerState=wanted), saved=saved)) == expected


@pytest.mark.parametrize(
    ("wanted", "state", "expected"),
    [
        (ON, MachineState.RUNNING, None),
        (ON, MachineState.PAUSED, Resume()),
        (PAUSED, MachineState.RUNNING, Pause()),
        (PAUSED, MachineState.PAUSED, None),
        (SUSPENDED, MachineState.RUNNING, Suspend()),
        (SUSPENDED, MachineState.PAUSED, Suspend()),
        (OFF, MachineState.RUNNING, PressButton()),
        # A guest that stands still hears no button.
        (OFF, MachineState.PAUSED, Resume()),
        *((wanted, MachineState.SHUTDOWN, Collect()) for wanted in (ON, OFF, PAUSED, SUSPENDED)),
        *((wanted, MachineState.PANICKED, Collect()) for wanted in (ON, OFF, PAUSED, SUSPENDED)),
        *((wanted, MachineState.ENDED, Collect()) for wanted in (ON, OFF, PAUSED, SUSPENDED)),
    ],
)
def test_with_a_machine(wanted: str, state: MachineState, expected: Step | None) -> None:
    assert only_step(running(vm(powerState=wanted), state)) == expected


def test_saved_state_beside_a_live_machine_is_stale() -> None:
    assert only_step(running(saved=True)) == DropSavedState()
    # Unless it is being made.
    assert only_step(running(vm(powerState=SUSPENDED), saved=True)) == Suspend()


def test_vm_that_qemu_pauses_again_is_resumed_now_and_then() -> None:
    paused = running(state=MachineState.PAUSED, resumed=1000.0 - 3)
    plan = make_plan(paused)
    assert (plan.steps, plan.ready.reason, plan.look_again) == ((), "PausedByError", 7.0)
    assert only_step(replace(paused, resumed=1000.0 - 11)) == Resume()


class TestPowerOff:
    def off(self, mode: str, pressed: tuple[float, float] | None = None) -> Observed:
        one = vm(powerState=OFF, powerOffMode=mode, powerOffTimeoutSeconds=30)
        seconds = ButtonPress(1000.0 - pressed[0], 1000.0 - pressed[1]) if pressed is not None else None
        return running(one, pressed=seconds)

    def test_hard_pulls_the_plug(self) -> None:
        assert isinstance(only_step(self.off("Hard")), Kill)

    def test_button_is_pressed_and_given_time(self) -> None:
        assert only_step(self.off("TrySoft")) == PressButton()
        plan = make_plan(self.off("TrySoft", (4, 4)))
        assert (plan.steps, plan.look_again) == ((), 6.0)

    def test_button_is_pressed_again_for_a_guest_that_was_starting(self) -> None:
        assert only_step(self.off("TrySoft", (11, 11))) == PressButton()

    def test_looks_again_at_the_deadline(self) -> None:
        assert make_plan(self.off("TrySoft", (25, 2))).look_again == 5.0

    def test_try_soft_pulls_the_plug_in_the_end_and_soft_never(self) -> None:
        assert isinstance(only_step(self.off("TrySoft", (30, 5))), Kill)
        plan = make_plan(self.off("Soft", (3000, 5)))
        assert (plan.steps, plan.ready.reason, plan.look_again) == ((), "GuestDoesNotStop", 55.0)


class TestEnds:
    @pytest.mark.parametrize(
        ("policy", "reason", "starts"),
        [
            ("Always", TerminationReason.GUEST_SHUTDOWN, True),
            ("Always", TerminationReason.GUEST_PANIC, True),
            ("OnFailure", TerminationReason.GUEST_SHUTDOWN, False),
            ("OnFailure", TerminationReason.GUEST_PANIC, True),
            ("OnFailure", TerminationReason.QEMU_FAILED, True),
            ("OnFailure", TerminationReason.UNKNOWN, True),
            ("Never", TerminationReason.GUEST_PANIC, False),
            ("Never", TerminationReason.QEMU_FAILED, False),
            # A guest that restarts itself has not come to an end.
            ("Never", TerminationReason.GUEST_RESET, True),
            ("Never", TerminationReason.HOST_REQUEST, True),
        ],
    )
    def test_restart_policy(self, policy: str, reason: TerminationReason, starts: bool) -> None:
        plan = make_plan(seen(vm(end(reason), restartPolicy=policy)))
        assert bool(plan.steps) is starts
        if not starts:
            assert plan.ready.reason == reason.value
            assert policy in plan.ready.message

    @pytest.mark.parametrize(("at_boot", "starts"), [(True, True), (False, False)])
    @pytest.mark.parametrize("policy", ["Always", "OnFailure", "Never"])
    def test_host_reboot_is_not_the_policys_business(self, policy: str, at_boot: bool, starts: bool) -> None:
        one = vm(end(TerminationReason.HOST_REBOOT), startAtBoot=at_boot, restartPolicy=policy)
        assert bool(make_plan(seen(one)).steps) is starts

    @pytest.mark.parametrize(
        ("restarts", "ago", "wait"),
        [(0, 0, None), (1, 4, 6), (2, 4, 16), (3, 41, None), (6, 0, 300), (60, 10, 290)],
    )
    def test_crash_loop_backs_off(self, restarts: int, ago: float, wait: float | None) -> None:
        status = {**end(TerminationReason.GUEST_PANIC, ago=ago), "restart_count": restarts}
        plan = make_plan(seen(vm(status)))
        if wait is None:
            assert plan.steps == (Launch(paused=False, restore=False, restarts=restarts + 1),)
        else:
            assert (plan.steps, plan.ready.reason, plan.look_again) == ((), "CrashLoopBackOff", wait)

    def test_good_run_ends_the_row(self) -> None:
        status = {**end(TerminationReason.GUEST_PANIC, ago=0, ran=601), "restart_count": 9}
        assert only_step(seen(vm(status))) == Launch(paused=False, restore=False, restarts=1)

    def test_clock_that_was_set_back_holds_up_nothing(self) -> None:
        status = {**end(TerminationReason.GUEST_PANIC, ago=-(25 * 365 * 86400)), "restart_count": 3}
        assert only_step(seen(vm(status))) == Launch(paused=False, restore=False, restarts=4)

    def test_run_that_vanished_is_told(self) -> None:
        gone = vm({"launch_id": "l-1"})
        (step,) = make_plan(seen(gone)).steps
        assert isinstance(step, RecordEnd)
        assert (step.termination.reason, step.termination.launch_id) == (TerminationReason.UNKNOWN, "l-1")
        rebooted = running(gone, machine=None)
        rebooted = replace(rebooted, host=replace(HOST, boot_id="boot-2"))
        (step,) = make_plan(rebooted).steps
        assert isinstance(step, RecordEnd)
        assert step.termination.reason is TerminationReason.HOST_REBOOT
        (step,) = make_plan(seen(vm({"launch_id": "l-1"}, powerState=OFF))).steps
        assert isinstance(step, RecordEnd)
        assert step.termination.reason is TerminationReason.HOST_REQUEST


class TestRestart:
    later = START + timedelta(seconds=1)

    def test_running_vm_is_powered_off_first(self) -> None:
        one = vm(restartRequestedAt=START, powerOffMode="Hard")
        one.spec.restart_requested_at = None
        observed = running(one)
        asked = vm({"restarted_at": START}, restartRequestedAt=self.later, powerOffMode="Hard")
        assert isinstance(only_step(replace(observed, vm=asked)), Kill)

    def test_start_answers_the_request_even_if_the_status_was_not_written(self) -> None:
        assert only_step(running(vm(restartRequestedAt=self.later))) is None

    def test_old_request_is_answered(self) -> None:
        assert only_step(running(vm({"restarted_at": self.later}, restartRequestedAt=START))) is None

    def test_ended_vm_is_started(self) -> None:
        status = end(TerminationReason.GUEST_SHUTDOWN)
        assert only_step(seen(vm(status, restartRequestedAt=self.later))) == COLD
        assert only_step(seen(vm({**status, "restarted_at": self.later}, restartRequestedAt=self.later))) is None

    def test_suspended_vm_begins_anew(self) -> None:
        assert only_step(seen(vm(restartRequestedAt=self.later), saved=True)) == DropSavedState()

    def test_powered_off_vm_stays_off(self) -> None:
        assert only_step(seen(vm(restartRequestedAt=self.later, powerState=OFF))) is None


class TestPlacing:
    def test_new_vm_is_claimed_before_anything_is_made_for_it(self) -> None:
        one = vm(disks=[{"name": "d", "size": "1Gi"}])
        one.metadata.labels = one.metadata.finalizers = None
        assert only_step(seen(one)) == Claim()

    def test_unschedulable_host_claims_nothing_and_starts_nothing(self) -> None:
        closed = HostView("host", unschedulable=True)
        new = vm()
        new.metadata.labels = new.metadata.finalizers = None
        for one in (new, vm()):
            plan = make_plan(replace(seen(one), host=closed))
            assert (plan.steps, plan.ready.reason) == ((), "HostUnschedulable")
        # What runs, runs on.
        assert make_plan(replace(running(), host=closed)).ready.ok

    @pytest.mark.parametrize(
        ("spec", "reason"),
        [
            ({"cpu": {"count": 9}}, "TooManyCPUs"),
            ({"memory": {"size": "5Gi"}}, "InsufficientMemory"),
        ],
    )
    def test_refused_spec_makes_nothing(self, spec: dict[str, Any], reason: str) -> None:
        one = vm(**spec, disks=[{"name": "d", "size": "1Gi"}])
        view = DiskView(one.spec.disks[0], "w-d", None)
        plan = make_plan(seen(one, disks=(view,)))
        assert (plan.steps, plan.ready.reason) == ((), reason)


class TestNetworks:
    def view(self, *conditions: Condition, generation: int = 1, **spec: Any) -> NicView:
        nic = NetworkInterface(name="n", network_ref=LocalReference(name="lan"))
        network = Network(
            metadata=ObjectMeta(name="lan", generation=generation),
            spec=NetworkSpec.model_validate({"provider": "nat", "nat": {"subnet": "10.8.0.0/24"}, **spec}),
            status=NetworkStatus(conditions=list(conditions)),
        )
        made = wanted_spec(vm(), nic, network, None).model_copy(update={"addresses": ["10.8.0.9"]})
        port = Port(
            metadata=ObjectMeta(name="w-n", generation=1, labels={HOST_LABEL: "host"}),
            spec=made,
            status=PortStatus(conditions=[condition("Accepted", "True", "Accepted", generation=1)]),
        )
        return NicView(nic, network, PortView("w-n", network, port, made, chooses=True))

    def ready(self) -> NicView:
        return self.view(condition("Ready", "True", "Available", generation=1))

    def port(self, view: NicView, **changes: Any) -> NicView:
        assert view.port is not None
        return replace(view, port=replace(view.port, **changes))

    def said(self, view: NicView) -> tuple[str, str]:
        plan = make_plan(seen(nics=(view,)))
        assert plan.steps == ()
        return plan.ready.reason, plan.ready.message

    def test_a_start_waits_for_its_networks_and_says_what_they_say(self) -> None:
        refused = condition("Ready", "False", "UplinkInUse", "eth0 has addresses of this host.", generation=1)
        assert self.said(self.view(refused)) == (
            "WaitingForNetwork",
            "Network lan is not ready: eth0 has addresses of this host.",
        )
        assert self.said(self.view()) == ("WaitingForNetwork", "Network lan is being made")
        stale = self.view(condition("Ready", "True", "Available", generation=1), generation=2)
        assert self.said(stale) == ("WaitingForNetwork", "Network lan is being made")
        assert self.said(replace(self.ready(), network=None)) == (
            "WaitingForNetwork",
            "there is no Network lan: make it",
        )
        user = Network(metadata=ObjectMeta(name="lan"), spec=NetworkSpec(provider=NetworkProvider.USER))
        assert not isinstance(only_step(seen(nics=(NicView(self.ready().nic, user),))), SettlePort)
        assert make_plan(seen(nics=(NicView(self.ready().nic, user),))).ready.reason != "WaitingForNetwork"

    def test_a_start_waits_for_its_ports(self) -> None:
        view = self.ready()
        assert view.port is not None
        assert view.port.port is not None
        refused = view.port.port.model_copy(deep=True)
        refused.status.conditions = [condition("Accepted", "False", "MacInUse", "it is another's.", generation=1)]
        assert self.said(self.port(view, port=refused)) == ("MacInUse", "Port w-n: it is another's.")
        unseen = view.port.port.model_copy(deep=True)
        unseen.status.conditions = None
        assert self.said(self.port(view, port=unseen)) == ("WaitingForPort", "Port w-n is being looked at")
        foreign = view.port.port.model_copy(deep=True)
        foreign.spec.owner = "another"
        assert self.said(self.port(view, port=foreign))[0] == "PortNameTaken"

    def test_ports_are_made_and_kept_whether_or_not_the_vm_is_to_run(self) -> None:
        missing = self.port(self.ready(), port=None)
        for power in (ON, OFF):
            assert only_step(seen(vm(power_state=power), nics=(missing,))) == SettlePort("n")
        view = self.ready()
        assert view.port is not None
        slower = view.port.wanted.model_copy(update={"vlan": 7})
        assert only_step(running(nics=(self.port(view, wanted=slower),))) == SettlePort("n")
        unaddressed = view.port.wanted.model_copy(update={"addresses": None})
        assert only_step(running(nics=(self.port(view, wanted=unaddressed),))) == SettlePort("n")
        assert only_step(seen(former_ports=("w-old",))) == DropPort("w-old")

    def test_no_port_stands_in_the_way_of_power(self) -> None:
        missing = self.port(self.ready(), port=None)
        one = vm(power_state=OFF, power_off_mode="Hard")
        assert isinstance(only_step(running(one, nics=(missing,))), Kill)

    def test_a_vm_that_is_refused_makes_no_ports(self) -> None:
        missing = self.port(self.ready(), port=None)
        assert make_plan(seen(vm(cpu={"count": 9}), nics=(missing,))).steps == ()


class TestVolumes:
    made = Disk(name="d", size="1Gi")
    named = Disk(name="d", volume_ref=LocalReference(name="data"))

    def volume(self, name: str, used_by: str | None = None, phase: VolumePhase = VolumePhase.READY) -> Volume:
        labels = {"carmel.dev/vm-uid": "u-1"} if name == "w-d" else None
        return Volume(
            metadata=ObjectMeta(name=name, labels=labels),
            spec=VolumeSpec(size="1Gi"),
            status=VolumeStatus(phase=phase, used_by=used_by),
        )

    def test_made_then_attached_then_waited_for_then_used(self) -> None:
        assert only_step(seen(disks=(DiskView(self.made, "w-d", None),))) == CreateVolume(self.made, "w-d")
        creating = self.volume("w-d", phase=VolumePhase.CREATING)
        assert only_step(seen(disks=(DiskView(self.made, "w-d", creating),))) == AttachVolume("w-d")
        creating.status.used_by = "w"
        assert make_plan(seen(disks=(DiskView(self.made, "w-d", creating),))).ready.reason == "WaitingForVolume"
        ready = self.volume("w-d", "w")
        assert only_step(seen(disks=(DiskView(self.made, "w-d", ready, holder_alive=True),))) == COLD

    def test_volume_of_another_vm_is_waited_for(self) -> None:
        taken = DiskView(self.named, "data", self.volume("data", "other"), holder_alive=True)
        plan = make_plan(seen(disks=(taken,)))
        assert (plan.steps, plan.ready.reason) == ((), "VolumeInUse")
        assert "VirtualMachine other" in plan.ready.message
        # Its VM is no more: nobody else can have it.
        assert only_step(seen(disks=(replace(taken, holder_alive=False),))) == AttachVolume("data")

    def test_name_that_is_taken_by_a_strangers_volume(self) -> None:
        stranger = self.volume("w-d")
        stranger.metadata.labels = None
        plan = make_plan(seen(disks=(DiskView(self.made, "w-d", stranger),)))
        assert (plan.steps, plan.ready.reason) == ((), "VolumeNameTaken")

    def test_volume_that_left_the_spec_is_let_go_when_the_vm_has_it_no_more(self) -> None:
        status = {"disks": [{"name": "gone", "volumeName": "old"}]}
        with_it = running(vm(disks=[{"name": "gone", "size": "1Gi"}]))
        held = replace(with_it, vm=vm(status), former_volumes=("old",))
        assert only_step(held) is None
        assert only_step(replace(held, launched=None)) is None
        assert held.launched is not None
        without = replace(held.launched, spec=vm().spec)
        assert only_step(replace(held, launched=without)) == DetachVolume("old")
        assert only_step(seen(vm(status, powerState=OFF), former_volumes=("old",))) == DetachVolume("old")


class TestDeletion:
    def deleted(self, **spec: Any) -> Any:
        one = vm(**spec)
        one.metadata.deletion_timestamp = START
        return one

    def test_running_vm_is_ended_then_removed(self) -> None:
        assert isinstance(only_step(running(self.deleted())), Kill)
        assert only_step(running(self.deleted(), MachineState.SHUTDOWN)) == Collect()
        assert only_step(seen(self.deleted())) == Remove()
        assert only_step(seen(self.deleted(), saved=True)) == Remove()

    def test_guest_may_write_out_a_disk_that_stays(self) -> None:
        disks = [{"name": "d", "volumeRef": {"name": "data"}}]
        for mode in ("Soft", "TrySoft"):
            asked = running(self.deleted(disks=disks, powerOffMode=mode, powerOffTimeoutSeconds=30))
            assert only_step(asked) == PressButton()
            # But a deletion comes to its end.
            assert isinstance(only_step(replace(asked, pressed=ButtonPress(900.0, 995.0))), Kill)
        assert isinstance(only_step(running(self.deleted(disks=disks, powerOffMode="Hard"))), Kill)

    def test_nothing_is_done_to_what_is_not_ours(self) -> None:
        one = self.deleted()
        one.metadata.finalizers = ["somebody/else"]
        assert only_step(seen(one)) is None
