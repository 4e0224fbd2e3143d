"""How a VM's run ended, from what is left of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from carmel.hypervisor.diagnosis import exit_in_words
from carmel.hypervisor.machine import MachineState
from carmel.hypervisor.record import LaunchRecord
from carmel.resources.virtualmachine import Termination, TerminationReason


def termination(
    record: LaunchRecord,
    state: MachineState,
    *,
    now: datetime,
    boot_id: str,
    status: int | None = None,
    words: Sequence[str] = (),
    guest_reason: str | None = None,
) -> Termination:
    """``status`` is QEMU's exit status if known, ``words`` its last ones, ``boot_id`` the host's present one."""
    reason, message = _reason(record, state, boot_id, status, words, guest_reason)
    known = status if state is MachineState.ENDED else None
    return Termination(
        reason=reason,
        message=message,
        exit_code=known if known is not None and known >= 0 else None,
        signal=-known if known is not None and known < 0 else None,
        launch_id=record.launch_id,
        started_at=record.started_at,
        finished_at=now,
    )


def _reason(
    record: LaunchRecord,
    state: MachineState,
    boot_id: str,
    status: int | None,
    words: Sequence[str],
    guest_reason: str | None,
) -> tuple[TerminationReason, str]:
    # What the guest did first counts: Carmel's own ending of a waiting QEMU comes after it.
    if state is MachineState.PANICKED:
        return TerminationReason.GUEST_PANIC, guest_reason or "the guest's kernel panicked"
    if state is MachineState.SHUTDOWN:
        return TerminationReason.GUEST_SHUTDOWN, "the guest shut itself down"
    if record.ending is not None:
        return TerminationReason(record.ending.reason), record.ending.message
    if record.boot_id != boot_id:
        return TerminationReason.HOST_REBOOT, "the host was restarted"
    last = words[-1] if words else "it said nothing"
    return TerminationReason.QEMU_FAILED, f"QEMU ended ({exit_in_words(status)}): {last}"
