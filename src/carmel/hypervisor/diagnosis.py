"""From QEMU's and its helpers' last words to an error with a code and something to do."""

from __future__ import annotations

import re
from collections.abc import Sequence

from carmel.errors import CarmelError, Refused
from carmel.hypervisor.failures import QEMUFailed

# (what they say, code, what to do), the first that fits.
_KNOWN: Sequence[tuple[re.Pattern[str], str, str]] = tuple(
    (re.compile(pattern, re.IGNORECASE), code, hint)
    for pattern, code, hint in (
        (
            r"host forwarding rule|address already in use|failed to bind",
            "PortInUse",
            "another program has the port: choose another hostPort, or leave it out to get a free one",
        ),
        (
            r"failed to get .* lock|is another process using the image",
            "DiskInUse",
            "another process has the disk open: stop that first",
        ),
        (
            r"cannot set up guest memory|cannot allocate memory",
            "InsufficientMemory",
            "this host has not enough free memory: give the VM less, or stop another",
        ),
        (
            r"could not access kvm|failed to initialize kvm|hv_vm_create|failed to initialize hvf",
            "NoAccelerator",
            "the accelerator cannot be used: carmel doctor says why",
        ),
    )
)
_STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\S+Z ")


def explain(program: str, words: Sequence[str], how: str) -> CarmelError:
    """Why ``program`` ended. ``how`` is its exit status in words."""
    said = [_STAMP.sub("", line) for line in words]
    last = said[-1] if said else "it said nothing"
    for pattern, code, hint in _KNOWN:
        for line in reversed(said):
            if pattern.search(line):
                return Refused(f"{program} could not start: {line}", code=code, hint=hint)
    hint = "machines/UID/qemu.log below carmeld's state directory holds all that it said"
    return QEMUFailed(f"{program} ended ({how}): {last}", hint=hint)


def exit_in_words(status: int | None) -> str:
    if status is None:
        return "exit status unknown"
    return f"exit status {status}" if status >= 0 else f"signal {-status}"
