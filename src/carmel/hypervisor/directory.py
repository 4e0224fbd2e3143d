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
from carmel.hypervisor.config import KernelFirmware, MachineConfig, UefiFirmware
from carmel.hypervisor.firmware import FirmwareFiles, make_variables
from carmel.hypervisor.layers import Layer
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
    for path in _only_read(config, layers):
        account.show(path)
    for disk in config.disks:
        if not disk.read_only:
            account.give(layers[disk.name][0].path)


def _only_read(config: MachineConfig, layers: Mapping[str, Sequence[Layer]]) -> Iterable[Path]:
    if isinstance(config.firmware, KernelFirmware):
        yield config.firmware.kernel
        if config.firmware.initrd is not None:
            yield config.firmware.initrd
    yield from config.cdroms
    for disk in config.disks:
        for depth, layer in enumerate(layers[disk.name]):
            if depth > 0 or disk.read_only:
                yield layer.path


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
