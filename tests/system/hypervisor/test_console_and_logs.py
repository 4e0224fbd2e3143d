"""A real serial console: a client that never reads stalls neither the guest nor the monitor, and logs stay small."""

from __future__ import annotations

import asyncio

from carmel.hypervisor import logs
from carmel.hypervisor.machine import MachineState
from tests.system.hypervisor.conftest import ConfigMaker, House, answer, until_prompt


async def test_a_client_that_never_reads_stalls_nobody(house: House, make_config: ConfigMaker) -> None:
    hypervisor = house.hypervisor()
    config = make_config()
    machine = await hypervisor.launch(config)
    await until_prompt(hypervisor, config.uid)
    lazy = await hypervisor.open_console(config.uid)
    keen = await hypervisor.open_console(config.uid)
    await keen.write(
        b"i=0; while [ $i -lt 20000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done\n"
    )
    await keen.write(b"echo fin''ished\n")
    seen = b""
    async with asyncio.timeout(60):
        while b"finished" not in seen:
            seen = seen[-100:] + await keen.read()
            assert seen
        assert (await machine.execute("query-status"))["status"] == "running"
        # It was dropped: it gets the end, not 800 KiB.
        assert len(await lazy.read()) == 0
    await machine.kill("done")
    assert await keen.read() is not None


async def test_the_serial_log_can_be_emptied_under_qemu(house: House, make_config: ConfigMaker) -> None:
    hypervisor = house.hypervisor()
    config = make_config()
    machine = await hypervisor.launch(config)
    await until_prompt(hypervisor, config.uid)
    paths = house.paths.machine(config.uid)
    logs.cap(paths.serial_log, paths.serial_log_older, 1024)
    assert paths.serial_log_older.stat().st_size == 1024
    stream = await hypervisor.open_console(config.uid)
    # QEMU logs a byte when it was sent: the first line is in the log when the second is seen.
    await answer(stream, b"echo af''ter; echo lo''gged\n", b"logged")
    await stream.close()
    assert machine.state is MachineState.RUNNING
    await machine.kill("done")
    data = paths.serial_log.read_bytes()
    # No hole: QEMU appends where the file ends now.
    assert b"after" in data
    assert b"\0" not in data
    assert hypervisor.serial_log(config.uid) == [paths.serial_log_older, paths.serial_log]
