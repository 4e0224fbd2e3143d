"""Helpers (passt): processes that QEMU needs from its first moment and may not start itself."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

from carmel.errors import CarmelError, TimedOut
from carmel.hypervisor import logs
from carmel.hypervisor.config import Helper
from carmel.hypervisor.diagnosis import exit_in_words, explain
from carmel.hypervisor.running import Running

_READY_SECONDS = 5.0
_POLL_SECONDS = 0.002
_LISTENING = 0x00010000
"""__SO_ACCEPTCON in the column Flags of /proc/net/unix (proc(5))."""
_UNIX_SOCKETS = Path("/proc/net/unix")


async def wait_until_ready(helper: Helper, process: Running, log: Path, log_offset: int) -> None:
    """Until ``helper`` listens. Raises what it said if it ended, or ``TimedOut``.

    It is not connected to for a try: passt serves one connection and ends with it.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_READY_SECONDS):
            while not _listens(helper.socket):
                if process.ended:
                    raise _died(helper, process, log, log_offset)
                await asyncio.sleep(_POLL_SECONDS)
            return
    raise TimedOut(f"{helper.name} was not ready within {_READY_SECONDS:g} s", code="HelperNotReady")


def _died(helper: Helper, process: Running, log: Path, log_offset: int) -> CarmelError:
    return explain(helper.name, logs.last_words(log, log_offset), exit_in_words(process.status))


def _listens(socket: Path) -> bool:
    if not socket.exists():
        return False
    if not _UNIX_SOCKETS.exists():
        return True
    wanted = str(socket)
    for line in _UNIX_SOCKETS.read_text(errors="replace").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7] == wanted and int(fields[3], 16) & _LISTENING:
            return True
    return False
