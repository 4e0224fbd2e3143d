"""The contract that the fake monitor keeps is the real QEMU's."""

from __future__ import annotations

import subprocess

from carmel.hypervisor.directory import listen
from carmel.paths import Paths
from tests.fakes.qmp_contract import check_monitor


async def test_contract(paths: Paths) -> None:
    paths.runtime.mkdir()
    socket = paths.runtime / "qmp"
    with listen(socket) as listener:
        options = ["-nodefaults", "-no-user-config", "-display", "none", "-S", "-name", "guest=default/fake/0"]
        monitor = ["-chardev", f"socket,id=qmp,fd={listener.fileno()},server=on,wait=off", "-mon", "chardev=qmp"]
        monitor[-1] += ",mode=control"
        process = subprocess.Popen(  # noqa: ASYNC220 - it is not waited for here
            ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a57", *options, *monitor],
            pass_fds=[listener.fileno()],
        )
    try:
        await check_monitor(socket)
    finally:
        process.kill()
        process.wait()
