"""A VM's files and sockets: made before a start, given to QEMU's account, removed afterwards."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from carmel.errors import Refused
from carmel.hypervisor import logs
from carmel.hypervisor.account import Account
from carmel.hypervisor.config import DiskConfig, KernelFirmware, MachineConfig, UefiFirmware
from carmel.hypervisor.files import write_atomically
from carmel.hypervisor.firmware import FirmwareFiles, make_variables
from carmel.hypervisor.layers import Layer
from carmel.hypervisor.psk import Psk
from carmel.paths import SOCKET_PATH_MAX_BYTES, MachinePaths


def prepare(
    paths: MachinePaths,
    config: MachineConfig,
    layers: Mapping[str, Sequence[Layer]],
    firmware: FirmwareFiles | None,
    account: Account,
) -> None:
    """Make the VM's directories and open to QEMU what it needs. Can be done again."""
    # Others than root only pass through: each file has its own rights.
    paths.state.parent.mkdir(parents=True, exist_ok=True)
    paths.state.mkdir(mode=0o711, exist_ok=True)
    paths.runtime.mkdir(parents=True, exist_ok=True)
    if account.gid is not None:
        os.chown(paths.runtime, -1, account.gid)
        # Helpers make their sockets here, but cannot remove or replace ours (the sticky bit).
        paths.runtime.chmod(0o1770)
    else:
        paths.runtime.chmod(0o700)
    logs.cap(paths.qemu_log, None, logs.QEMU_LOG_BYTES)
    logs.cap(paths.serial_log, paths.serial_log_older, logs.SERIAL_LOG_BYTES)
    paths.serial_log.touch(mode=0o600)
    account.give(paths.serial_log)
    if isinstance(config.firmware, UefiFirmware) and firmware is not None:
        if not paths.nvram.exists():
            make_variables(firmware.variables, paths.nvram)
        account.give(paths.nvram)
    for path in _only_read(config):
        account.show(path)
    for disk in config.disks:
        if isinstance(disk, DiskConfig):
            open_layers(layers[disk.name], account, read_only=disk.read_only)


def open_layers(layers: Sequence[Layer], account: Account, *, read_only: bool) -> None:
    """Open a disk's files to QEMU: the first to be written, unless it is ``read_only``, the others to be read."""
    for depth, layer in enumerate(layers):
        if depth > 0 or read_only:
            account.show(layer.path)
        else:
            account.give(layer.path)


def write_key(folder: Path, psk: Psk, account: Account) -> None:
    """A key of TLS, for QEMU's account and nobody else; where GnuTLS looks for it."""
    folder.mkdir(exist_ok=True, mode=0o700)
    file = folder / "keys.psk"
    write_atomically(file, psk.line, mode=0o400)
    for place in (file, folder):
        account.give(place)


def _only_read(config: MachineConfig) -> Iterable[Path]:
    if isinstance(config.firmware, KernelFirmware):
        yield config.firmware.kernel
        if config.firmware.initrd is not None:
            yield config.firmware.initrd
    yield from config.cdroms


def listen(path: Path) -> socket.socket:
    """A listening Unix socket that only the daemon's user can connect to. An old one goes."""
    if len(os.fsencode(path)) > SOCKET_PATH_MAX_BYTES:
        raise Refused(
            f"{path} is too long for a Unix socket", code="PathTooLong", hint="set CARMEL_RUN_DIR to a shorter path"
        )
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(os.fspath(path))
        path.chmod(0o600)
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    return listener


def remove_runtime(paths: MachinePaths) -> None:
    shutil.rmtree(paths.runtime, ignore_errors=True)


def remove_all(paths: MachinePaths) -> None:
    remove_runtime(paths)
    shutil.rmtree(paths.state, ignore_errors=True)
