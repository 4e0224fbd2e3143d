"""Network namespaces, by setns(2)."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from carmel.errors import Unavailable

_CLONE_NEWNET = 0x40000000


def enter(namespace: Path) -> None:
    """Move this thread into ``namespace``, for ever."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise Unavailable(f"cannot enter the network namespace {namespace}: {os.strerror(number)}")
    finally:
        os.close(fd)
