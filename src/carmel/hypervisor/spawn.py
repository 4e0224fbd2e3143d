"""Starting processes that stay: QEMU and its helpers.

They get a session of their own, an empty standard input, a log for their output, a short environment, no core dumps
and no file descriptor but those named.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from carmel.cpulist import format_cpu_list
from carmel.errors import Refused
from carmel.hypervisor.account import Account
from carmel.hypervisor.memlock import children_may_lock
from carmel.hypervisor.pinning.failures import cannot_pin

_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Spawn:
    """One process to start. ``log`` gets its output, appended. ``cpus``: those it starts on; ``None``: ours."""

    argv: Sequence[str]
    log: Path
    account: Account
    pass_fds: Sequence[int] = ()
    cpus: Sequence[int] | None = None
    locked_bytes: int | None = None
    """What it must be allowed to lock in RAM; ``None``: no more than we are."""


def spawn(what: Spawn) -> subprocess.Popen[bytes]:
    """Start it. The caller reaps it. Raises ``Refused`` (``ProgramMissing``, ``NotPermitted``, ``CannotPin``,
    ``MemlockTooSmall``)."""
    account = what.account
    _no_core_dumps()
    log = os.open(what.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        with _on_cpus(what.cpus), children_may_lock(what.locked_bytes):
            process = subprocess.Popen(
                what.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=_ENVIRONMENT,
                start_new_session=True,
                umask=0o077,
                user=account.uid,
                group=account.gid,
                extra_groups=account.groups if account.uid is not None else None,
                pass_fds=tuple(what.pass_fds),
            )
    except FileNotFoundError as exc:
        raise Refused(f"the program {what.argv[0]} is not there", code="ProgramMissing") from exc
    except PermissionError as exc:
        raise Refused(f"{what.argv[0]} may not be started: {exc.strerror}", code="NotPermitted") from exc
    finally:
        os.close(log)
    return process


@contextlib.contextmanager
def _on_cpus(cpus: Sequence[int] | None) -> Iterator[None]:
    """This thread's children start on ``cpus``: affinity is inherited (sched_setaffinity(2)), and each thread's own."""
    if cpus is None:
        yield
        return
    ours = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as exc:
        raise cannot_pin(f"the CPUs {format_cpu_list(cpus)}", exc) from exc
    try:
        yield
    finally:
        os.sched_setaffinity(0, ours)


def _no_core_dumps() -> None:
    """A core dump holds the guest's memory. Children inherit our limit; we hold keys, and want no dump either."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
