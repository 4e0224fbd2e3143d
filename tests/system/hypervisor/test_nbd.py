"""Disks on an NBD server: by TLS, and with a server that comes and goes under a guest that writes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from carmel.errors import CarmelError, Unavailable
from carmel.hypervisor.config import NbdDiskConfig
from carmel.hypervisor.machine import ConsoleStream, Machine
from carmel.hypervisor.psk import Psk
from carmel.hypervisor.qemu import QemuHypervisor
from carmel.hypervisor.qemu_machine import QemuMachine
from carmel.paths import Paths
from carmel.resources.virtualmachine import DiskBus
from tests.nbdserver import NbdServer
from tests.system.hypervisor.conftest import GUEST_SECONDS, ConfigMaker, House, answer, until_prompt

BLOCK = b"carmel" * 100
STALL_SECONDS = 14
"""Longer than a QEMU that stands still is waited for."""
_WRITES = """
until [ -b DEVICE ]; do :; done
yes carmel | tr -d '\\n' | head -c 600 >/tmp/block
n=0
while [ $n -lt 400 ]; do dd if=/tmp/block of=DEVICE bs=4k seek=$n conv=fsync 2>/dev/null || echo failed; \
n=$((n + 1)); echo wrote $n; done; dmesg | grep -c 'I/O error' | sed 's/^/errors /'; echo all $((6 * 7))
"""


@pytest.fixture
def server(paths: Paths) -> Iterator[NbdServer]:
    folder = paths.state.parent / "nbd"
    folder.mkdir()
    server = NbdServer(folder, "disk")
    try:
        server.start()
        yield server
    finally:
        server.kill()


def far(server: NbdServer, bus: DiskBus = DiskBus.VIRTIO) -> NbdDiskConfig:
    return NbdDiskConfig("far", bus, "127.0.0.1", server.port, server.export, server.psk, "far", stall_seconds=120)


async def until(lines: AsyncIterator[str], wanted: str) -> None:
    async with asyncio.timeout(GUEST_SECONDS):
        async for line in lines:
            if line == wanted:
                return
    raise AssertionError(f"{wanted!r} never came")


async def lines_of(stream: ConsoleStream) -> AsyncIterator[str]:
    rest = b""
    while data := await stream.read():
        *lines, rest = (rest + data).replace(b"\r", b"").split(b"\n")
        for line in lines:
            yield line.decode()


async def write_while_it_goes(hypervisor: QemuHypervisor, machine: Machine, device: str, server: NbdServer) -> None:
    """The guest writes one block after the other; meanwhile the server is killed, and started again."""
    stream = await hypervisor.open_console(machine.launch.uid)
    try:
        await stream.write(_WRITES.replace("DEVICE", device).encode())
        lines = lines_of(stream)
        await until(lines, "wrote 3")
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        said = []
        async with asyncio.timeout(GUEST_SECONDS):
            async for line in lines:
                said.append(line)
                if line == "all 42":
                    break
    finally:
        await stream.close()
    assert "failed" not in said
    assert "errors 0" in said
    written = await asyncio.to_thread(server.image.read_bytes)
    assert all(written[block * 4096 :].startswith(BLOCK) for block in range(400))


async def test_a_guest_waits_for_its_disk_and_sees_no_error(
    house: House, make_config: ConfigMaker, server: NbdServer
) -> None:
    hypervisor = house.hypervisor()
    machine = await hypervisor.launch(make_config(disks=(far(server),)))
    await until_prompt(hypervisor, machine.launch.uid)
    await write_while_it_goes(hypervisor, machine, "/dev/vda", server)
    (folder,) = machine.paths.runtime.glob("*-tls")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "keys.psk").stat().st_mode & 0o777 == 0o400
    await machine.kill("the test is over")


async def test_an_nvme_drive_from_afar_is_plugged(house: House, make_config: ConfigMaker, server: NbdServer) -> None:
    hypervisor = house.hypervisor()
    machine = await hypervisor.launch(make_config(iommu=True))
    await until_prompt(hypervisor, machine.launch.uid)
    await machine.plug_disk(far(server, DiskBus.NVME))
    await write_while_it_goes(hypervisor, machine, "/dev/nvme0n1", server)
    await machine.unplug_disk("far")
    assert list(machine.paths.runtime.glob("*-tls")) == []
    await machine.kill("the test is over")


@pytest.mark.parametrize("busy", [False, True])
async def test_a_vm_does_not_stand_still_for_a_disk_that_goes_while_its_server_is_away(
    house: House, make_config: ConfigMaker, server: NbdServer, busy: bool
) -> None:
    """QEMU would, until the stall is over: with what is under way, and with its own last flush."""
    hypervisor = house.hypervisor()
    machine = await hypervisor.launch(make_config(iommu=True))
    await until_prompt(hypervisor, machine.launch.uid)
    await machine.plug_disk(replace(far(server), stall_seconds=STALL_SECONDS))
    write = b"dd if=/dev/zero of=/dev/vda bs=4k count=4 conv=fsync 2>/dev/null"
    stream = await hypervisor.open_console(machine.launch.uid)
    await answer(stream, b"until [ -b /dev/vda ]; do :; done; " + write + b"; echo wro''te\n", b"wrote")
    await asyncio.to_thread(server.kill)
    if busy:
        await answer(stream, write + b" & echo be''gun\n", b"begun")
    with pytest.raises(Unavailable, match=r"does not answer .* and the VM would stand still") as caught:
        await machine.unplug_disk("far")
    assert caught.value.code == "NBDUnreachable"
    async with asyncio.TaskGroup() as group:
        group.create_task(ask_until_gone(machine))
        while machine.disks:
            with contextlib.suppress(Unavailable):
                await machine.unplug_disk("far")
            # Nothing tells when a stall is over.
            await asyncio.sleep(0.5)
    await answer(stream, b"echo a''live\n", b"alive")
    await stream.close()
    await machine.kill("the test is over")


async def ask_until_gone(machine: Machine) -> None:
    """A QEMU that stands still does not answer in time, which is an error."""
    assert isinstance(machine, QemuMachine)
    async with asyncio.timeout(GUEST_SECONDS):
        while machine.disks:
            await machine.execute("query-status")
            await asyncio.sleep(0.2)


async def test_what_a_server_refuses_is_told(house: House, make_config: ConfigMaker, server: NbdServer) -> None:
    hypervisor = house.hypervisor()
    good = far(server)
    stranger = replace(good, psk=Psk("host", "00" * 32))
    elsewhere = replace(good, export="other")
    down = replace(good, port=1)
    cases = ((stranger, "NBDNotTrusted"), (elsewhere, "NBDExportMissing"), (down, "NBDUnreachable"))
    for disk, code in cases:
        with pytest.raises(CarmelError) as caught:
            await hypervisor.launch(make_config(disks=(disk,)), paused=True)
        assert (caught.value.code, caught.value.retryable) == (code, code != "NBDNotTrusted")
    machine = await hypervisor.launch(make_config(), paused=True)
    for disk, code in cases:
        with pytest.raises(CarmelError) as caught:
            await machine.plug_disk(disk)
        assert caught.value.code == code
        assert machine.disks == []
    await machine.plug_disk(good)
    await machine.kill("the test is over")
