"""VMs outlive the daemon: it is killed, and another one finds them, or finds out how they ended."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from carmel.hypervisor import savedstate
from carmel.hypervisor.config import MachineConfig
from carmel.hypervisor.machine import MachineState
from carmel.hypervisor.processes import process_table
from carmel.hypervisor.qemu_machine import QemuMachine
from carmel.hypervisor.qmp import QmpConnection
from carmel.hypervisor.record import LaunchRecord
from carmel.paths import Paths
from carmel.resources.virtualmachine import TerminationReason
from tests.system.hypervisor.conftest import ConfigMaker, House, boot_id, read_until, until_prompt

ROLE = Path(__file__).parent / "daemon_role.py"
READY = b"ready nonce="


@asynccontextmanager
async def killed_daemon(paths: Paths, config: MachineConfig) -> AsyncIterator[tuple[str, int]]:
    """A daemon that launched ``config``; killed with SIGKILL when the block is left. Gives launch id and pid."""
    paths.state.mkdir(parents=True, exist_ok=True)
    pickled = paths.state / "config.pickle"
    pickled.write_bytes(pickle.dumps(config))
    daemon = await asyncio.create_subprocess_exec(
        sys.executable,
        ROLE,
        *map(str, (paths.state, paths.runtime, paths.cache, pickled)),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": os.environ["PATH"]},
    )
    assert daemon.stdout is not None
    try:
        launch_id, pid = (await asyncio.wait_for(daemon.stdout.readline(), 60)).decode().split()
        yield launch_id, int(pid)
    finally:
        daemon.kill()
        await daemon.wait()


async def until_status(paths: Paths, uid: str, status: str) -> None:
    """Ask QEMU itself, as nobody else is there."""
    async with asyncio.timeout(60):
        while True:
            qmp = QmpConnection("test", lambda _event: None, lambda: None)
            await qmp.connect(paths.machine(uid).qmp_socket)
            found = (await qmp.execute("query-status"))["status"]
            await qmp.close()
            if found == status:
                return
            await asyncio.sleep(0.2)


async def type_in(paths: Paths, uid: str, text: bytes, answer: bytes) -> None:
    """What a person at the serial console would do while there is no daemon, until ``answer`` is seen."""
    reader, writer = await asyncio.open_unix_connection(str(paths.machine(uid).serial_socket))
    async with asyncio.timeout(60):
        await _until(reader, b"# ", poke=writer)
        writer.write(text)
        await _until(reader, answer)
    writer.close()
    await writer.wait_closed()


async def _until(reader: asyncio.StreamReader, wanted: bytes, poke: asyncio.StreamWriter | None = None) -> None:
    seen = b""
    while wanted not in seen:
        try:
            seen += await asyncio.wait_for(reader.read(4096), 1)
        except TimeoutError:
            # The prompt may have been written before we came.
            if poke is not None:
                poke.write(b"\n")


async def test_the_same_process_and_the_same_boot(house: House, make_config: ConfigMaker) -> None:
    config = make_config()
    async with killed_daemon(house.paths, config) as (launch_id, pid):
        pass
    hypervisor = house.hypervisor()
    (machine,) = await hypervisor.adopt()
    assert (machine.launch.launch_id, machine.launch.pid) == (launch_id, pid)
    assert machine.state is MachineState.RUNNING
    console = await read_until(hypervisor, config.uid, READY)
    await until_prompt(hypervisor, config.uid)
    stream = await hypervisor.open_console(config.uid)
    await stream.write(b"cat /proc/sys/kernel/random/boot_id\n")
    seen = b""
    async with asyncio.timeout(30):
        while seen.count(boot_id(console)) < 2:
            seen += await stream.read()
    await stream.close()
    ended = await machine.kill("done")
    assert ended.launch_id == launch_id


async def test_a_guest_that_powered_off_meanwhile(house: House, make_config: ConfigMaker) -> None:
    config = make_config()
    async with killed_daemon(house.paths, config):
        pass
    await type_in(house.paths, config.uid, b"poweroff -f\n", b"Power down")
    await until_status(house.paths, config.uid, "shutdown")
    (machine,) = await house.hypervisor().adopt()
    assert machine.state is MachineState.SHUTDOWN
    assert (await machine.collect()).reason is TerminationReason.GUEST_SHUTDOWN


async def test_a_guest_that_panicked_meanwhile(house: House, make_config: ConfigMaker) -> None:
    config = make_config()
    async with killed_daemon(house.paths, config):
        pass
    await type_in(house.paths, config.uid, b"echo c > /proc/sysrq-trigger\n", b"end Kernel panic")
    (machine,) = await house.hypervisor().adopt()
    assert machine.state is MachineState.PANICKED
    ended = await machine.collect()
    assert ended.reason is TerminationReason.GUEST_PANIC
    assert "sysrq triggered crash" in ended.message


async def test_a_qemu_that_was_killed_meanwhile(house: House, make_config: ConfigMaker) -> None:
    async with killed_daemon(house.paths, make_config()) as (_launch_id, pid):
        pass
    os.kill(pid, signal.SIGKILL)
    table = process_table()
    async with asyncio.timeout(10):
        while (process := table.identify(pid)) is not None:
            await table.wait(process)
    (machine,) = await house.hypervisor().adopt()
    assert machine.state is MachineState.ENDED
    assert (await machine.collect()).reason is TerminationReason.QEMU_FAILED


def rewrite(paths: Paths, uid: str, **changes: object) -> None:
    record = paths.machine(uid).launch_record
    record.write_text(json.dumps({**json.loads(record.read_text()), **changes}))


async def test_after_a_reboot_of_the_host_no_pid_is_believed(house: House, make_config: ConfigMaker) -> None:
    config = make_config()
    hypervisor = house.hypervisor()
    machine = await hypervisor.launch(config, paused=True)
    await hypervisor.close()
    rewrite(house.paths, config.uid, boot_id="of another boot", process={"pid": os.getpid(), "started": "1"})
    (found,) = await house.hypervisor().adopt()
    assert found.state is MachineState.ENDED
    assert (await found.collect()).reason is TerminationReason.HOST_REBOOT
    # What ran under that record in truth belongs to no VM now, and was ended.
    assert process_table().identify(machine.launch.pid) is None


async def test_a_pid_that_was_used_again_is_left_alone(house: House, make_config: ConfigMaker) -> None:
    config = make_config()
    hypervisor = house.hypervisor()
    machine = await hypervisor.launch(config, paused=True)
    await machine.kill("done")
    paths = house.paths.machine(config.uid)
    record = machine.record.save
    paths.state.mkdir(parents=True, exist_ok=True)
    record(paths.launch_record)
    # Our own pid, with another start time.
    rewrite(house.paths, config.uid, process={"pid": os.getpid(), "started": "1"}, ending=None)
    (found,) = await house.hypervisor().adopt()
    assert found.state is MachineState.ENDED
    await found.collect()


async def test_killed_between_start_and_record(house: House, make_config: ConfigMaker) -> None:
    config = make_config()
    hypervisor = house.hypervisor()
    launch = (await hypervisor.launch(config, paused=True)).launch
    await hypervisor.close()
    rewrite(house.paths, config.uid, process=None)
    (found,) = await house.hypervisor().adopt()
    assert (found.launch.pid, found.state) == (launch.pid, MachineState.PAUSED)
    again = LaunchRecord.load(house.paths.machine(config.uid).launch_record, uid=config.uid)
    assert again.process is not None
    assert again.process.pid == launch.pid
    await found.kill("done")


async def test_what_has_no_valid_record_is_ended(house: House, make_config: ConfigMaker) -> None:
    config = make_config()
    hypervisor = house.hypervisor()
    pid = (await hypervisor.launch(config, paused=True)).launch.pid
    await hypervisor.close()
    house.paths.machine(config.uid).launch_record.write_text("{")
    table = process_table()
    process = table.identify(pid)
    assert process is not None
    assert await house.hypervisor().adopt() == []
    async with asyncio.timeout(10):
        await table.wait(process)
    assert not house.paths.machine(config.uid).runtime.exists()


async def test_a_restore_that_was_interrupted_keeps_its_state(
    house: House, make_config: ConfigMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    first = house.hypervisor()
    await (await first.launch(config, paused=True)).suspend()
    loading = asyncio.Event()

    async def stuck(machine: QemuMachine, *, paused: bool) -> None:
        loading.set()
        await machine.let_go()
        await asyncio.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(savedstate, "load", stuck)
        restoring = asyncio.create_task(first.launch(config, restore=True))
        await loading.wait()
    # For a second daemon it looks as if the first had been killed now.
    second = house.hypervisor()
    (found,) = await second.adopt()
    assert found.state is MachineState.ENDED
    assert (await found.collect()).reason is TerminationReason.HOST_REQUEST
    assert house.paths.machine(config.uid).saved_state.exists()
    machine = await second.launch(config, restore=True)
    assert machine.state is MachineState.RUNNING
    await machine.kill("done")
    assert not restoring.done()
    await _abandon(restoring)


async def _abandon(task: asyncio.Task[QemuMachine]) -> None:
    """End what hangs for ever, with everything that it waits for."""
    for each in asyncio.all_tasks() - {asyncio.current_task()}:
        if each is task or "_launch" in repr(each.get_coro()):
            each.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
