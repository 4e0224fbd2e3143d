"""A real guest in a real QEMU: launched, asked, paused, ended, and refused when it cannot be."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from carmel.errors import CarmelError, Refused
from carmel.hypervisor.config import DiskConfig, NicConfig, UefiFirmware
from carmel.hypervisor.failures import QEMUFailed, QEMUNotAnswering
from carmel.hypervisor.layers import can_be_direct
from carmel.hypervisor.machine import MachineState
from carmel.hypervisor.qemu import QemuHypervisor
from carmel.hypervisor.qemu_machine import QemuMachine
from carmel.paths import Paths
from carmel.resources.virtualmachine import DiskBus, DiskCache, TerminationReason
from tests.system.hypervisor.conftest import ConfigMaker, House, answer, boot_id, read_until, until_prompt, until_state

USER_NET = NicConfig("default", "52:54:00:11:22:33", {"type": "user"})
READY = b"ready nonce="


async def until_agent(hypervisor: QemuHypervisor, machine: QemuMachine) -> None:
    async with asyncio.timeout(30), hypervisor.changes() as changes:
        if await machine.guest() is None:
            async for _change in changes:
                if await machine.guest() is not None:
                    return


def make_image(path: Path) -> Path:
    """Where QEMU's user may come."""
    path.parent.mkdir(parents=True)
    path.parent.chmod(0o711)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "16M"], check=True)
    return path


async def test_a_guest_boots_answers_and_shuts_down(house: House, make_config: ConfigMaker) -> None:
    hypervisor = house.hypervisor()
    config = make_config(nics=(USER_NET,))
    machine = await hypervisor.launch(config)
    assert hypervisor.machine(config.uid) is machine
    assert machine.state is MachineState.RUNNING
    assert machine.launch.machine_type.startswith("virt-")
    seen = await read_until(hypervisor, config.uid, READY)
    assert f"nonce=n{os.getpid()}".encode() in seen
    await until_agent(hypervisor, machine)
    guest = await machine.guest()
    assert guest is not None
    assert guest.host_name == "micro"
    # An IPv6 address is there as well, once the router told its prefix.
    assert "10.0.2.15" in (await machine.guest_addresses())[USER_NET.mac]
    assert await machine.migration_blockers() == []
    await machine.request_shutdown()
    await until_state(hypervisor, machine, MachineState.SHUTDOWN)
    ended = await machine.collect()
    assert ended.reason is TerminationReason.GUEST_SHUTDOWN
    assert ended.launch_id == machine.launch.launch_id
    assert hypervisor.machine(config.uid) is None
    assert READY in b"".join(path.read_bytes() for path in hypervisor.serial_log(config.uid))
    await hypervisor.forget(config.uid)
    assert not house.paths.machine(config.uid).state.exists()


async def test_pause_resume_reset_and_kill(house: House, make_config: ConfigMaker) -> None:
    hypervisor = house.hypervisor()
    config = make_config()
    machine = await hypervisor.launch(config, paused=True)
    assert machine.state is MachineState.PAUSED
    with pytest.raises(Refused) as caught:
        await hypervisor.launch(config)
    assert caught.value.code == "MachineRunning"
    await machine.resume()
    await until_state(hypervisor, machine, MachineState.RUNNING)
    first = boot_id(await read_until(hypervisor, config.uid, READY))
    await machine.pause()
    await until_state(hypervisor, machine, MachineState.PAUSED)
    with pytest.raises(Refused):
        await machine.collect()
    await machine.resume()
    stream = await hypervisor.open_console(config.uid)
    await stream.read()
    await machine.reset()
    seen = b""
    async with asyncio.timeout(60):
        while b"boot-id=" not in seen.partition(b"Booting Linux")[2]:
            seen += await stream.read()
        seen += await stream.read()
    await stream.close()
    assert first not in seen.partition(b"Booting Linux")[2]
    ended = await machine.kill("asked by the test")
    assert (ended.reason, ended.message) == (TerminationReason.HOST_REQUEST, "asked by the test")
    assert not house.paths.machine(config.uid).launch_record.exists()


async def test_qemu_runs_unprivileged_and_without_core_dumps(house: House, make_config: ConfigMaker) -> None:
    machine = await house.hypervisor().launch(make_config(), paused=True)
    proc = Path("/proc") / str(machine.launch.pid)
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    if os.geteuid() == 0:
        assert "0" not in status["Uid"].split()
        assert "0" not in status["Groups"].split()
    assert status["Seccomp"].strip() == "2"
    assert re.search(r"Max core file size +0 ", (proc / "limits").read_text())
    assert os.getsid(machine.launch.pid) == machine.launch.pid
    await machine.kill("done")


async def test_a_killed_qemu_is_told_with_its_signal(house: House, make_config: ConfigMaker) -> None:
    hypervisor = house.hypervisor()
    machine = await hypervisor.launch(make_config())
    os.kill(machine.launch.pid, signal.SIGKILL)
    await until_state(hypervisor, machine, MachineState.ENDED)
    ended = await machine.collect()
    assert (ended.reason, ended.signal, ended.exit_code) == (TerminationReason.QEMU_FAILED, 9, None)


async def test_a_qemu_that_hangs_hangs_nobody(house: House, make_config: ConfigMaker) -> None:
    hypervisor = house.hypervisor()
    machine = await hypervisor.launch(make_config())
    os.kill(machine.launch.pid, signal.SIGSTOP)
    async with asyncio.timeout(20):
        with pytest.raises(QEMUNotAnswering):
            await machine.monitor.qmp.execute("query-status", seconds=0.5)
        assert (await machine.kill("it hangs")).reason is TerminationReason.HOST_REQUEST


async def test_a_taken_port_is_named_and_nothing_is_left(house: House, make_config: ConfigMaker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        netdev = {"type": "user", "hostfwd": [{"str": f"tcp:127.0.0.1:{port}-:22"}]}
        config = make_config(nics=(NicConfig("n", "52:54:00:00:00:01", netdev),))
        with pytest.raises(Refused) as caught:
            await house.hypervisor().launch(config)
    assert caught.value.code == "PortInUse"
    assert caught.value.hint
    assert not house.paths.machine(config.uid).launch_record.exists()


async def test_no_disk_has_two_users(house: House, make_config: ConfigMaker, paths: Paths) -> None:
    image = make_image(paths.state / "shared.qcow2")
    hypervisor = house.hypervisor()
    disk = DiskConfig("root", DiskBus.VIRTIO, image, "qcow2", "root")
    first = await hypervisor.launch(make_config(disks=(disk,)), paused=True)
    with pytest.raises(Refused) as caught:
        await hypervisor.launch(make_config(disks=(disk,)), paused=True)
    assert caught.value.code == "DiskInUse"
    await first.kill("done")


@pytest.mark.parametrize(("cache", "wanted"), [(None, True), (DiskCache.WRITE_BACK, False)])
async def test_a_disk_goes_past_the_page_cache_unless_told_else(
    house: House, make_config: ConfigMaker, paths: Paths, cache: DiskCache | None, wanted: bool
) -> None:
    """What QEMU opened the file with, from the kernel (proc(5), /proc/PID/fdinfo)."""
    image = make_image(paths.state / "disk.qcow2")
    if wanted and not can_be_direct(image):
        pytest.skip("this file system has no O_DIRECT")
    disk = DiskConfig("root", DiskBus.VIRTIO, image, "qcow2", "root", cache=cache)
    machine = await house.hypervisor().launch(make_config(disks=(disk,)), paused=True)
    process = Path("/proc", str(machine.launch.pid))
    opened = [one.name for one in (process / "fd").iterdir() if one.resolve() == image]
    flags = [re.search(r"flags:\s*(\d+)", (process / "fdinfo" / name).read_text()) for name in opened]
    assert {bool(int(found[1], 8) & os.O_DIRECT) for found in flags if found} == {wanted}
    await machine.kill("done")


async def test_qemus_last_words_are_quoted(house: House, make_config: ConfigMaker) -> None:
    config = make_config(nics=(NicConfig("n", "52:54:00:00:00:01", {"type": "bogus"}),))
    with pytest.raises(QEMUFailed, match="bogus"):
        await house.hypervisor().launch(config)


async def test_uefi_keeps_its_variables(house: House, make_config: ConfigMaker) -> None:
    hypervisor = house.hypervisor()
    config = make_config(firmware=UefiFirmware(), memory_bytes=256 * 1024**2)
    machine = await hypervisor.launch(config, paused=True)
    nvram = house.paths.machine(config.uid).nvram
    assert nvram.stat().st_size == 64 * 1024**2
    assert nvram.stat().st_blocks * 512 < 4 * 1024**2
    await machine.kill("done")
    assert nvram.exists()


async def test_suspend_and_restore_go_on_where_they_were(house: House, make_config: ConfigMaker) -> None:
    hypervisor = house.hypervisor()
    config = make_config()
    machine = await hypervisor.launch(config)
    await until_prompt(hypervisor, config.uid)
    stream = await hypervisor.open_console(config.uid)
    await answer(stream, b"touch /tmp/before; echo sa''ved\n", b"saved")
    await stream.close()
    await machine.suspend()
    saved = house.paths.machine(config.uid).saved_state
    assert saved.exists()
    assert hypervisor.machine(config.uid) is None
    restored = await hypervisor.launch(config, restore=True)
    assert restored.state is MachineState.RUNNING
    assert not saved.exists()
    stream = await hypervisor.open_console(config.uid)
    await answer(stream, b"ls /tmp/before && echo st''ill\n", b"still")
    await stream.close()
    await restored.kill("done")


async def test_an_nvme_disk_cannot_be_suspended_and_runs_on(
    house: House, make_config: ConfigMaker, paths: Paths
) -> None:
    image = make_image(paths.state / "disk.qcow2")
    config = make_config(disks=(DiskConfig("root", DiskBus.NVME, image, "qcow2", "root"),))
    machine = await house.hypervisor().launch(config)
    assert any("nvme" in blocker for blocker in await machine.migration_blockers())
    with pytest.raises(Refused) as caught:
        await machine.suspend()
    assert caught.value.code == "NonMigratableDevice"
    assert machine.state is MachineState.RUNNING
    assert not house.paths.machine(config.uid).saved_state.exists()
    await machine.kill("done")


async def test_spoilt_state_is_refused_and_kept(house: House, make_config: ConfigMaker) -> None:
    hypervisor = house.hypervisor()
    config = make_config()
    await (await hypervisor.launch(config, paused=True)).suspend()
    saved = house.paths.machine(config.uid).saved_state
    with saved.open("r+b") as file:
        file.truncate(saved.stat().st_size // 2)
    with pytest.raises(CarmelError) as caught:
        await hypervisor.launch(config, restore=True)
    assert caught.value.code == "QEMUFailed"
    assert saved.exists()
    assert hypervisor.machine(config.uid) is None


async def test_a_cancelled_start_leaves_nothing(house: House, make_config: ConfigMaker) -> None:
    hypervisor = house.hypervisor()
    config = make_config()
    await hypervisor.platform()
    starting = asyncio.create_task(hypervisor.launch(config))
    await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert hypervisor.machine(config.uid) is None
    assert not house.paths.machine(config.uid).launch_record.exists()


async def test_a_missing_user_is_refused(house: House, make_config: ConfigMaker) -> None:
    if os.geteuid() != 0:
        machine = await house.hypervisor(user="carmel-nobody-here").launch(make_config(), paused=True)
        await machine.kill("done")
        return
    with pytest.raises(Refused) as caught:
        await house.hypervisor(user="carmel-nobody-here").launch(make_config())
    assert caught.value.code == "UserMissing"
    assert "useradd" in str(caught.value.hint)


async def test_a_renamed_vm_is_found_under_its_new_name(house: House, make_config: ConfigMaker) -> None:
    config = dataclasses.replace(make_config(), name="new-name")
    machine = await house.hypervisor().launch(config, paused=True)
    assert (await machine.execute("query-name"))["name"] == f"default/new-name/{machine.launch.launch_id}"
    await machine.kill("done")
