"""Pure: whether a VM that should run and does not is started, now, later or not at all."""

from __future__ import annotations

from dataclasses import dataclass

from carmel.controllers.virtualmachine.observed import Observed
from carmel.resources.base import format_time
from carmel.resources.virtualmachine import (
    RestartPolicy,
    Termination,
    TerminationReason,
    VirtualMachineSpec,
    VirtualMachineStatus,
)

FIRST_DELAY_SECONDS = 10.0
LONGEST_DELAY_SECONDS = 300.0
GOOD_RUN_SECONDS = 600.0
"""A run of this length ends a row of failures. The three figures are those of Kubernetes' CrashLoopBackOff."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start now. ``restarts`` is how many times in a row the policy has started it, this one included."""

    restarts: int


@dataclass(frozen=True, slots=True)
class StartLater:
    seconds: float
    message: str


@dataclass(frozen=True, slots=True)
class StayOff:
    reason: str
    message: str


def restart_pending(
    spec: VirtualMachineSpec, status: VirtualMachineStatus, launched: VirtualMachineSpec | None
) -> bool:
    """A restart was asked for that no start has answered yet. ``launched`` is the running VM's spec, if it runs.

    The spec that a VM was launched with counts as well as the status, which a killed daemon may not have written.
    """
    asked = spec.restart_requested_at
    if asked is None:
        return False
    answered = [status.restarted_at, launched.restart_requested_at if launched is not None else None]
    return all(one is None or asked > one for one in answered)


def ended_run(status: VirtualMachineStatus) -> Termination | None:
    """How the run ended that answered to the present wish to run; ``None``: there was none, it is to be started.

    ``status.launchID`` keeps the run's id after an end that nobody asked for, and is cleared by one that was.
    """
    end = status.last_termination
    return end if end is not None and status.launch_id is not None and end.launch_id == status.launch_id else None


def decide_start(observed: Observed) -> Start | StartLater | StayOff:
    spec, status = observed.vm.spec, observed.vm.status
    end = ended_run(status)
    if end is None or restart_pending(spec, status, None) or observed.saved:
        return Start(0)
    if end.reason is TerminationReason.HOST_REBOOT:
        if spec.start_at_boot:
            return Start(0)
        return StayOff(
            "NotStartedAtBoot", "the host was started anew and startAtBoot is false: restart the VM to run it"
        )
    if end.reason in {TerminationReason.HOST_REQUEST, TerminationReason.GUEST_RESET}:
        return Start(0)
    if not _policy_starts(spec.restart_policy, end.reason):
        return StayOff(
            end.reason.value,
            f"the VM ended{_said(end)} and restartPolicy is {spec.restart_policy.value}: restart it to run it again",
        )
    return _after_delay(observed, end)


def _policy_starts(policy: RestartPolicy, reason: TerminationReason) -> bool:
    if policy is RestartPolicy.ON_FAILURE:
        return reason is not TerminationReason.GUEST_SHUTDOWN
    return policy is RestartPolicy.ALWAYS


def _after_delay(observed: Observed, end: Termination) -> Start | StartLater:
    restarts = restarts_in_a_row(observed.vm.status)
    delay = restart_delay(restarts)
    if end.finished_at is None:
        return Start(restarts + 1)
    since = (observed.now - end.finished_at).total_seconds()
    # A clock that was set back says nothing: do not wait for it.
    if since < 0 or since >= delay:
        return Start(restarts + 1)
    at = format_time(observed.now.fromtimestamp(end.finished_at.timestamp() + delay, tz=observed.now.tzinfo))
    times = "once" if restarts == 1 else f"{restarts} times in a row"
    return StartLater(delay - since, f"the VM ended{_said(end)} and was restarted {times}: next start at {at}")


def restarts_in_a_row(status: VirtualMachineStatus) -> int:
    end = status.last_termination
    if end is not None and end.started_at is not None and end.finished_at is not None:
        ran = (end.finished_at - end.started_at).total_seconds()
        if ran >= GOOD_RUN_SECONDS:
            return 0
    return status.restart_count or 0


def restart_delay(restarts: int) -> float:
    """Seconds between an end and the next start, after ``restarts`` restarts in a row. The first comes at once."""
    if restarts == 0:
        return 0.0
    return min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2.0 ** min(restarts - 1, 30))


def _said(end: Termination) -> str:
    return f" ({end.reason.value}: {end.message})" if end.message else f" ({end.reason.value})"
