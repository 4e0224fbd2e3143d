"""The folders of cables, and the kernel's queue for datagrams: what ``cable`` plans, done."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path

from carmel.errors import Refused
from carmel.network import cable
from carmel.network.cable import End
from carmel.paths import SOCKET_PATH_MAX_BYTES

_GROUPS = Path("/proc/self/gid_map")
_QUEUE = Path("/proc/sys/net/unix/max_dgram_qlen")
_SEND_BUFFER = Path("/proc/sys/net/core/wmem_default")
_LONGEST_NAME = len(f"/{'x' * 16}.peer")


def lay(folder: Path, users: Sequence[End], group: int | None) -> None:
    """Make the cable's folder be as it should: its links and nothing of strangers. Can be done again.

    ``group``: that of QEMU's processes; ``None``: they run as we do. Raises ``Refused`` (``PathTooLong``).
    """
    if len(os.fsencode(folder)) + _LONGEST_NAME > SOCKET_PATH_MAX_BYTES:
        raise Refused(
            f"{folder} is too long for Unix sockets", code="PathTooLong", hint="set CARMEL_RUN_DIR to a shorter path"
        )
    queue_problem()
    # Whoever has the group comes in, but finds no other cable.
    folder.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
    folder.mkdir(exist_ok=True, mode=0o700)
    if group is not None:
        os.chown(folder, -1, group)
        folder.chmod(0o770)
    for name in cable.strays(_names(folder), users):
        _remove(folder / name)
    for name, target in cable.links(users).items():
        _link(folder / name, target)


def clear(folders: Path, uid: str, keep: Collection[str] = ()) -> None:
    """Remove what the VM ``uid`` has in any cable's folder, but for its NICs ``keep``; and folders that are empty."""
    for folder in folders.glob("*"):
        # QEMU may write there too, so nothing is sure of what it finds. Not empty: the other end is there.
        with contextlib.suppress(OSError):
            for name in cable.belonging(_names(folder), uid, keep):
                _remove(folder / name)
            folder.rmdir()


def usable_group(wanted: int, otherwise: int) -> int:
    """``wanted``, or ``otherwise`` in a user namespace (a container's) that has no such group (user_namespaces(7))."""
    try:
        lines = _GROUPS.read_text().splitlines()
    except OSError:
        return wanted
    mapped = (tuple(map(int, line.split())) for line in lines)
    return wanted if any(first <= wanted < first + count for first, _outside, count in mapped) else otherwise


def queue_problem() -> str:
    """Make the queue for datagrams long enough, as systemd does. Else a sentence without an end.

    Sockets have the length that was set when they were made, in the network namespace they were made in.
    """
    try:
        wanted = max(512, int(_SEND_BUFFER.read_text()) // cable.DATAGRAM_BYTES + 1)
        length = int(_QUEUE.read_text())
    except OSError:
        # Not Linux.
        return ""
    if length >= wanted:
        return ""
    with contextlib.suppress(OSError):
        _QUEUE.write_text(f"{wanted}\n")
        return ""
    return (
        f"net.unix.max_dgram_qlen is {length}: a VM that sends much to a slow or paused one keeps a CPU of this host "
        f"busy; sysctl net.unix.max_dgram_qlen={wanted} (as root) makes it better"
    )


def _names(folder: Path) -> list[str]:
    return [place.name for place in folder.iterdir()]


def _link(place: Path, target: str) -> None:
    with contextlib.suppress(OSError):
        if str(place.readlink()) == target:
            return
    _remove(place)
    place.symlink_to(target)


def _remove(place: Path) -> None:
    try:
        place.unlink(missing_ok=True)
    except (IsADirectoryError, PermissionError):
        shutil.rmtree(place)
