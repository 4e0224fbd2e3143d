"""Pumping bytes between a terminal (or pipes) and a console, and leaving the terminal as it was."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import threading
import time
import tty
from collections.abc import Iterator

from carmel.client.console import Console
from carmel.errors import CarmelError, TimedOut

DETACH = b"\x1d"
"""Ctrl-], as in telnet and virsh."""


class Attachment:
    """One attached console. One thread reads what the guest prints, the caller's reads the keyboard.

    ``linger`` is how long to stay after a pipe's end, in seconds; ``until`` ends the attachment when the guest has
    printed it, ``timeout`` seconds later at most.
    """

    def __init__(
        self,
        console: Console,
        *,
        linger: float | None = None,
        until: bytes | None = None,
        timeout: float | None = None,
    ) -> None:
        self._console = console
        self._linger = linger
        self._until = until
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._timeout = timeout
        self._seen = b""
        self._error: BaseException | None = None
        self._ended = ""
        self._woken, self._wake = os.pipe()

    def run(self, stdin: int, stdout: int) -> str:
        """Pump until an end: the detach key, the VM's end, the text that was waited for. Returns which it was.

        Raises ``TimedOut`` when the text did not come, ``Unavailable`` when the connection was lost.
        """
        reader = threading.Thread(target=self._print, args=(stdout,), daemon=True)
        left = False
        try:
            with raw(stdin):
                reader.start()
                left = self._type(stdin)
        finally:
            self._console.close()
            reader.join()
            os.close(self._woken)
            os.close(self._wake)
        if left:
            return "Detached."
        if self._error is not None:
            raise self._error
        return self._ended

    def _print(self, stdout: int) -> None:
        try:
            while data := self._console.receive():
                write_all(stdout, data)
                if self._until is not None and self._found(data):
                    self._ended = "Seen."
                    return
            self._ended = "The console has ended: the VM does not run any more."
        except (CarmelError, OSError) as exc:
            self._error = exc
        finally:
            os.write(self._wake, b".")

    def _found(self, data: bytes) -> bool:
        assert self._until is not None
        self._seen += data
        if self._until in self._seen:
            return True
        self._seen = self._seen[-len(self._until) :]
        return False

    def _type(self, stdin: int) -> bool:
        """Send what is typed, until the reader has ended (false) or we leave (true)."""
        sources = [self._woken, stdin]
        deadline = self._deadline
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready, _, _ = select.select(sources, [], [], left)
            if self._woken in ready:
                return False
            if not ready:
                self._check_time(deadline)
                return True
            data = os.read(stdin, 4096)
            before, detach, _ = data.partition(DETACH) if os.isatty(stdin) else (data, b"", b"")
            if before:
                self._console.send(before)
            if detach:
                return True
            if not data:
                sources.remove(stdin)
                if self._linger is not None:
                    deadline = min(time.monotonic() + self._linger, deadline or float("inf"))

    def _check_time(self, deadline: float | None) -> None:
        """Raises ``TimedOut`` unless it is the time to linger that has passed."""
        if self._until is not None and deadline == self._deadline:
            said = self._until.decode()
            raise TimedOut(f"the VM did not print {said!r} within {self._timeout:g} s", code="WaitTimedOut")


def write_all(descriptor: int, data: bytes) -> None:
    """A terminal may take less than all at once."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


@contextlib.contextmanager
def raw(descriptor: int) -> Iterator[None]:
    """Every key goes through as it is; afterwards the terminal is as before. Nothing happens to what is no terminal."""
    if not os.isatty(descriptor):
        yield
        return
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
