"""What can go wrong when QEMU is started or spoken to."""

from __future__ import annotations

from carmel.errors import CarmelError, Refused, Unavailable


class QEMUFailed(CarmelError):
    """QEMU ended by itself. The message quotes its last words."""

    reason = "QEMUFailed"
    vim_fault = "GenericVmConfigFault"


class QEMUTooOld(Refused):
    """The installed QEMU lacks what Carmel needs (it is older than 7.2)."""

    reason = "QEMUTooOld"


class QMPFailed(CarmelError):
    """QEMU answered a command with an error. ``error_class`` is QMP's (``GenericError``, ``CommandNotFound``)."""

    reason = "QMPFailed"

    def __init__(self, command: str, message: str, error_class: str) -> None:
        super().__init__(f"QEMU refused {command}: {message}")
        self.error_class = error_class


class QEMUNotAnswering(Unavailable):
    """QEMU did not answer in time, or closed its monitor."""

    reason = "QEMUNotAnswering"


def not_running(uid: str) -> Refused:
    return Refused(f"the VM {uid} does not run", code="MachineNotRunning", hint="start it first")
