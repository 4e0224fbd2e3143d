"""A process that waits before it becomes QEMU, until it is in its cpuset.

What a process touches before it is moved stays where it was first touched, and nothing may run between fork and exec
of a daemon with threads. So flock(1) of util-linux is started in QEMU's place (``--no-fork``: it becomes QEMU, with the
same pid): it waits for a lock on the VM's own directory, which is held until the process is where it belongs.

The lock belongs to an open file that the waiting process inherits (flock(2)). If the daemon dies meanwhile the lock
stays: QEMU never runs at a wrong place. Adoption ends what waits so.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from carmel.hypervisor.pinning.failures import CannotPin
from carmel.run import find_program

_OPTION = "--no-fork"


class Gate:
    """Closed when entered; what passes ``argv`` waits until ``open``. ``descriptor`` is to be inherited by it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.descriptor = -1

    def __enter__(self) -> Self:
        self.descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(self.descriptor)
            raise CannotPin("an earlier start of this VM still waits for its cpuset", retryable=True) from exc
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)

    def argv(self, argv: Sequence[str]) -> tuple[str, ...]:
        """What to start instead of ``argv``."""
        return (str(find_program("flock") or "flock"), _OPTION, str(self._directory), *argv)

    def open(self) -> None:
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)


def waits_at_gate(words: Sequence[str], directories: Path) -> bool:
    """Whether a process with these arguments waits at the gate of a VM whose directory is in ``directories``."""
    if len(words) < 4 or Path(words[0]).name != "flock" or words[1] != _OPTION:
        return False
    return Path(words[2]).parent == directories
