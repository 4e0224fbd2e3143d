"""A terminal for tests: ``carmel`` in a process of its own behind a pty."""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
import termios
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

_COMMAND = "import sys; from carmel.cli.main import main; sys.exit(main())"


class Terminal:
    """``carmel WORDS`` on a terminal. ``screen`` is all that was printed so far."""

    def __init__(self, words: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._words = words
        self._environment = {**os.environ, "TERM": "xterm", **environment}
        self._pid = 0
        self._master = -1
        self._status: int | None = None
        self.screen = b""

    def __enter__(self) -> Self:
        self._pid, self._master = pty.fork()
        if self._pid == 0:
            os.execve(sys.executable, [sys.executable, "-c", _COMMAND, *self._words], self._environment)
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _exc: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._status is None:
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        os.close(self._master)

    def expect(self, text: bytes, seconds: float = 20) -> None:
        """Read until ``text`` is on the screen."""
        deadline = time.monotonic() + seconds
        while text not in self.screen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} did not come: {self.screen!r}"
            self._read(left)

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def is_raw(self) -> bool:
        local_modes = termios.tcgetattr(self._master)[3]
        return not local_modes & (termios.ICANON | termios.ECHO)

    def interrupt(self, seconds: float = 20) -> int:
        """Press Ctrl-C until it ends, as people do: CPython misses one that comes just before it begins to read."""
        deadline = time.monotonic() + seconds
        pressed_at = -1.0
        while self._read(0.1):
            now = time.monotonic()
            assert now < deadline, self.screen
            if now - pressed_at > 1:
                self.type(b"\x03")
                pressed_at = now
        status = self._reap()
        return 130 if status == -signal.SIGINT else status  # a shell shows both as 130

    def end(self, seconds: float = 20) -> int:
        """Wait for the end and give the exit status."""
        deadline = time.monotonic() + seconds
        while self._read(max(0.0, deadline - time.monotonic())):
            assert time.monotonic() < deadline, self.screen
        return self._reap()

    def _reap(self) -> int:
        _, status = os.waitpid(self._pid, 0)
        self._status = os.waitstatus_to_exitcode(status)
        return self._status

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], seconds)
        try:
            data = os.read(self._master, 65536) if ready else b" "
        except OSError:  # EIO: the other end is closed (Linux)
            return False
        self.screen += data if ready else b""
        return bool(data)
