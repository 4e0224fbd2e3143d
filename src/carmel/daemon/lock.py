"""One daemon a state directory: an exclusive lock (flock(2)) that the kernel gives back whatever way we end."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from carmel.errors import Refused


class StateLock:
    """Held from construction until ``release``."""

    def __init__(self, path: Path) -> None:
        """Raises ``Refused`` (``DaemonRunning``) when another daemon holds it."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(self._descriptor, 32).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise Refused(
                f"another carmeld{f' (pid {holder})' if holder else ''} uses the state directory {path.parent}",
                code="DaemonRunning",
                hint="stop it first, or give this one a --state-dir of its own",
            ) from None
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def is_in_place(self) -> bool:
        """Whether the state directory is still there: the path still leads to the very file that we hold."""
        try:
            there, ours = self._path.stat(), os.fstat(self._descriptor)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def release(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
