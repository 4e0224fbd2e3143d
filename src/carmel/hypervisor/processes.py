"""Processes that are not ours to wait for: who they are, whether they are still there, how to end them.

A pid alone proves nothing, for it is used again. A process is its pid with its start time: field 22 of
/proc/PID/stat in clock ticks since boot (proc(5)), on macOS what ``ps -o lstart=`` prints. On Linux signals go
through a pidfd (pidfd_open(2)), so that the process that was looked at is the one that gets the signal.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from carmel.hypervisor.record import ProcessId

_PROC = Path("/proc")


class ProcessTable(Protocol):
    """What the operating system knows of processes. None of it blocks for long, but all of it may block."""

    def boot_id(self) -> str:
        """Another one after each boot of this host."""
        ...

    def identify(self, pid: int) -> ProcessId | None:
        """The process that has this pid now; ``None``: there is none, or only a zombie."""
        ...

    def find(self, matches: Callable[[Sequence[str]], bool]) -> list[ProcessId]:
        """Every process whose arguments match. On macOS they come split at each space."""
        ...

    def alive(self, process: ProcessId) -> bool: ...

    def signal(self, process: ProcessId, number: int) -> bool:
        """Send a signal to this very process. False: it is gone."""
        ...

    async def wait(self, process: ProcessId) -> None:
        """Until it is gone."""
        ...


def process_table() -> ProcessTable:
    return DarwinProcesses() if sys.platform == "darwin" else LinuxProcesses()


class LinuxProcesses:
    """By /proc and pidfds."""

    def boot_id(self) -> str:
        return (_PROC / "sys/kernel/random/boot_id").read_text().strip()

    def identify(self, pid: int) -> ProcessId | None:
        try:
            stat = (_PROC / str(pid) / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # The second field is the name in brackets and may hold anything.
        fields = stat.rpartition(")")[2].split()
        state, started = fields[0], fields[19]
        return None if state in ("Z", "X") else ProcessId(pid, started)

    def find(self, matches: Callable[[Sequence[str]], bool]) -> list[ProcessId]:
        found = []
        for entry in _PROC.iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode("utf-8", "surrogateescape").split("\0")[:-1]
                if matches(words):
                    process = self.identify(int(entry.name))
                    found += [process] if process else []
        return found

    def alive(self, process: ProcessId) -> bool:
        return self.identify(process.pid) == process

    def signal(self, process: ProcessId, number: int) -> bool:
        pidfd = self._open(process)
        if pidfd is None:
            return False
        try:
            signal.pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(pidfd)
        return True

    async def wait(self, process: ProcessId) -> None:
        pidfd = self._open(process)
        if pidfd is None:
            return
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        # Readable once it ended, whoever its parent is.
        loop.add_reader(pidfd, gone.set)
        try:
            await gone.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)

    def _open(self, process: ProcessId) -> int | None:
        try:
            pidfd = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return None
        if self.identify(process.pid) != process:
            os.close(pidfd)
            return None
        return pidfd


class DarwinProcesses:
    """By ``ps``; a signal can in theory meet another process that got the pid in between."""

    _POLL_SECONDS = 0.2

    def boot_id(self) -> str:
        return self._output(["/usr/sbin/sysctl", "-n", "kern.boottime"]).strip()

    def identify(self, pid: int) -> ProcessId | None:
        words = self._output(["/bin/ps", "-o", "state=,lstart=", "-p", str(pid)]).split(maxsplit=1)
        return ProcessId(pid, words[1].strip()) if len(words) == 2 and not words[0].startswith("Z") else None

    def find(self, matches: Callable[[Sequence[str]], bool]) -> list[ProcessId]:
        found = []
        for line in self._output(["/bin/ps", "-axww", "-o", "pid=,command="]).splitlines():
            pid, _, command = line.strip().partition(" ")
            if matches(command.split()) and (process := self.identify(int(pid))):
                found.append(process)
        return found

    def alive(self, process: ProcessId) -> bool:
        return self.identify(process.pid) == process

    def signal(self, process: ProcessId, number: int) -> bool:
        if not self.alive(process):
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
            return True
        return False

    async def wait(self, process: ProcessId) -> None:
        while await asyncio.to_thread(self.alive, process):  # noqa: ASYNC110 - ps has no events
            await asyncio.sleep(self._POLL_SECONDS)

    def _output(self, argv: Sequence[str]) -> str:
        return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=10).stdout
