"""Tells systemd how we are: READY, STOPPING and the watchdog (sd_notify(3), "Notes" on the protocol)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class ServiceManager:
    """Without a service manager (``NOTIFY_SOCKET`` unset) every call does nothing."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        env = os.environ if environ is None else environ
        address = env.get("NOTIFY_SOCKET", "")
        # "@" stands for the zero byte of an abstract address.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        ours = env.get("WATCHDOG_PID") in {None, str(os.getpid())}
        micro = env.get("WATCHDOG_USEC", "") if ours else ""
        self.watchdog_seconds = int(micro) / 2_000_000 if micro.isdigit() and self._address else None
        """How often to call ``alive``: twice as often as asked for."""

    def ready(self, status: str) -> None:
        self._send(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)
                channel.sendto(message.encode(), self._address)
        except OSError:
            # A manager that does not listen is no reason to end.
            return
