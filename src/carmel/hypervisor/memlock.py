"""How much memory a QEMU may lock in RAM (RLIMIT_MEMLOCK, setrlimit(2)): one with functions of the host locks it all.

Only root raises a limit that was set as the highest (CAP_SYS_RESOURCE).
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

from carmel.errors import Refused
from carmel.units import GIB, format_bytes

BESIDE_BYTES = GIB
"""For the registers of other devices, which functions may reach, too. libvirt allows as much."""


def locked_bytes(memory_bytes: int) -> int:
    """What a QEMU with functions of the host must be allowed to lock."""
    return memory_bytes + BESIDE_BYTES


@contextlib.contextmanager
def children_may_lock(wanted: int | None) -> Iterator[None]:
    """Children of ours may lock so many bytes: limits are inherited, and QEMU's account cannot raise its own.

    Ours is back as it was afterwards. Raises ``Refused`` (``MemlockTooSmall``).
    """
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    raised = _raised(before, wanted)
    if raised is None:
        yield
        return
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, raised)
    except (ValueError, PermissionError) as exc:
        raise _too_small(before[1], raised[0]) from exc
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, before)


def allow_to_lock(pid: int, wanted: int) -> None:
    """Let a process that runs lock so many bytes. Raises ``Refused`` (``MemlockTooSmall``)."""
    before = resource.prlimit(pid, resource.RLIMIT_MEMLOCK)
    raised = _raised(before, wanted)
    if raised is None:
        return
    try:
        resource.prlimit(pid, resource.RLIMIT_MEMLOCK, raised)
    except (ValueError, PermissionError) as exc:
        raise _too_small(before[1], raised[0]) from exc


def _raised(limits: tuple[int, int], wanted: int | None) -> tuple[int, int] | None:
    """``None``: enough already."""
    soft, hard = limits
    if wanted is None or soft == resource.RLIM_INFINITY or soft >= wanted:
        return None
    return wanted, hard if hard == resource.RLIM_INFINITY else max(hard, wanted)


def _too_small(hard: int, wanted: int) -> Refused:
    return Refused(
        f"a VM with functions of the host locks its memory in RAM: that needs {format_bytes(wanted)}, "
        f"and carmeld may lock no more than {format_bytes(hard)}",
        code="MemlockTooSmall",
        hint="run carmeld as root, or raise the limit of its user: LimitMEMLOCK= of the unit, or limits.conf(5)",
    )
