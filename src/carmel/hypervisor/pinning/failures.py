"""What the kernel says when a place cannot be had, in words."""

from __future__ import annotations

import errno

from carmel.errors import Refused

_WHY = {
    errno.EINVAL: "one of them does not exist, is offline, or is kept from this host's VMs",
    errno.ERANGE: "one of them does not exist",
    errno.EACCES: "one of them is kept from this host's VMs by a cpuset above theirs",
    errno.EPERM: "this user may not",
    errno.EBUSY: "one of them belongs to a cpuset that has it exclusively",
    errno.ENOSPC: "a process would be left without any",
    errno.ENOENT: "the VM's cpuset is gone",
    errno.ENODEV: "the VM's cpuset is gone",
}


class CannotPin(Refused):
    """A VM cannot be held at this place, or not be moved there."""

    reason = "CannotPin"


def cannot_pin(what: str, error: OSError) -> CannotPin:
    """``what``: such as ``the CPUs 0-3``."""
    why = _WHY.get(error.errno or 0, error.strerror or str(error))
    return CannotPin(
        f"{what} cannot be given to the VM: {why}",
        hint="carmel host shows the CPUs and nodes that there are",
        retryable=error.errno == errno.EBUSY,
    )
