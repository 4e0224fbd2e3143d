"""Starting processes that stay: QEMU and its helpers.

They get a session of their own, an empty standard input, a log for their output, a short environment, no core dumps
and no file descriptor but those named. Where systemd runs and we are root, the processes of a VM are put into a
transient scope unit of their own (systemd.scope(5)), so that stopping the daemon's unit never ends them.
"""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from carmel.errors import CarmelError, Refused
from carmel.hypervisor.account import Account
from carmel.run import Command, Limits, Runner

_SYSTEMD_RUNNING = Path("/run/systemd/system")
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Spawn:
    """One process to start. ``log`` gets its output, appended."""

    argv: Sequence[str]
    log: Path
    account: Account
    pass_fds: Sequence[int] = ()


def spawn(what: Spawn) -> subprocess.Popen[bytes]:
    """Start it. The caller reaps it. Raises ``Refused`` (``ProgramMissing``, ``NotPermitted``)."""
    account = what.account
    _no_core_dumps()
    log = os.open(what.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
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


def _no_core_dumps() -> None:
    """A core dump holds the guest's memory. Children inherit our limit; we hold keys, and want no dump either."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))


def systemd_runs() -> bool:
    """Whether a system manager is there that takes our units (sd_booted(3))."""
    return _SYSTEMD_RUNNING.is_dir() and os.geteuid() == 0


def scope_command(unit: str, description: str, pids: Sequence[int]) -> Command:
    """Put running processes into a new scope (org.freedesktop.systemd1(5), StartTransientUnit)."""
    properties: list[str] = ["3"]
    properties += ["Description", "s", description]
    properties += ["CollectMode", "s", "inactive-or-failed"]
    properties += ["PIDs", "au", str(len(pids)), *(str(pid) for pid in pids)]
    manager = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
    argv = ["busctl", "call", *manager, "StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", *properties, "0"]
    return Command(argv, limits=Limits(seconds=10))


async def move_into_scope(runner: Runner, unit: str, description: str, pids: Sequence[int]) -> str | None:
    """Best effort: a VM in the daemon's own unit runs as well. Returns what went wrong, for the log."""
    try:
        await runner.run(scope_command(unit, description, pids))
    except CarmelError as exc:
        return exc.message
    return None
