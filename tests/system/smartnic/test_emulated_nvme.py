"""The emulated NIC's NVMe functions, with the real qemu-storage-daemon."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from carmel.errors import CarmelError
from carmel.hypervisor.account import Account
from carmel.hypervisor.processes import process_table
from carmel.hypervisor.psk import Psk
from carmel.hypervisor.qmp import QmpConnection
from carmel.hypervisor.record import ProcessId
from carmel.paths import Paths
from carmel.run import SystemRunner
from carmel.smartnic.nvme.emulated import EmulatedNvme
from carmel.smartnic.nvme.export import Listen, below
from carmel.smartnic.nvme.functions import Limits, Show
from carmel.units import MIB
from tests.fakes.nvme_contract import CONTRACT, OTHER, UID, Check, Subject
from tests.system.smartnic.nbd import Client, hear, tell


def free_ports(count: int) -> int:
    """The first of ``count`` ports in a row that nobody has."""
    for _ in range(100):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = int(probe.getsockname()[1])
        held: list[socket.socket] = []
        try:
            for port in range(first, first + count):
                one = socket.socket()
                held.append(one)
                one.bind(("127.0.0.1", port))
        except OSError:
            continue
        finally:
            for one in held:
                one.close()
        return first
    raise AssertionError("no free ports")


class World:
    """One NIC's functions, and disks to show."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = Paths(folder / "state", folder / "run", folder / "cache")
        self.psk = Psk("carmel", secrets.token_hex(32))
        self.port = free_ports(2)
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.client = Client(folder / "client", self.port, self.psk)
        for place in (self.paths.state, self.paths.runtime):
            place.mkdir(parents=True)
            place.chmod(0o711)

    def disk(self, name: str = "disk", size: int = 16 * MIB) -> Path:
        path = self.folder / name
        if not path.exists():
            path.touch()
            os.truncate(path, size)
        return path

    def functions(self) -> EmulatedNvme:
        async def key() -> Psk:
            return self.psk

        return EmulatedNvme(
            self.paths,
            SystemRunner(),
            process_table(),
            Account.for_daemon,
            Listen("127.0.0.1", self.port),
            key,
            self.ended.put_nowait,
            count=2,
        )

    def exporters(self) -> list[ProcessId]:
        return process_table().find(lambda words: below(words, self.paths.exports) is not None)

    async def ask(self, command: str, arguments: dict[str, object]) -> Any:
        """What the exporter of UID answers."""
        qmp = QmpConnection("test", lambda _event: None, lambda: None)
        await qmp.connect(self.paths.export(UID).qmp_socket)
        try:
            return await qmp.execute(command, arguments)
        finally:
            await qmp.close()

    @asynccontextmanager
    async def running(self, known: Collection[str] = (UID, OTHER)) -> AsyncIterator[EmulatedNvme]:
        """As one daemon has them: what it shows outlives it."""
        functions = self.functions()
        await functions.adopt(known)
        try:
            yield functions
        finally:
            await functions.aclose()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    # QEMU's account passes through to what it is given.
    for place in (tmp_path, *tmp_path.parents):
        if place.stat().st_uid == os.geteuid() and place != Path("/tmp"):
            place.chmod(place.stat().st_mode | 0o011)
    opened = World(tmp_path)
    yield opened
    left = opened.functions()
    await left.adopt([])
    await left.aclose()
    assert process_table().find(lambda words: any(str(tmp_path) in word for word in words)) == []


async def io(client: Client, *commands: str, export: str = "pf0nvme0") -> str:
    """It has to end well."""
    done = await asyncio.to_thread(client.io, export, *commands)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_a_namespace_is_shown_with_tls_to_who_has_the_key(world: World) -> None:
    async with world.running() as functions:
        await functions.show(Show(UID, "pf0nvme0", world.disk(), 512))
        assert await functions.shown(UID) == "pf0nvme0"
        await io(world.client, "write -P 7 4096 8192", "read -P 7 4096 8192")
        assert world.disk().read_bytes()[4096:12288] == b"\x07" * 8192
        stranger = Client(world.folder / "stranger", world.port, Psk("carmel", secrets.token_hex(32)))
        refused = await asyncio.to_thread(stranger.io, "pf0nvme0", "read 0 512")
        assert refused.returncode != 0
        assert "TLS handshake failed" in refused.stderr
        await functions.hide(UID)
        assert await functions.shown(UID) is None


async def test_the_next_daemon_finds_it_and_changes_nothing(world: World) -> None:
    what = Show(UID, "pf0nvme0", world.disk(), 512)
    async with world.running() as functions:
        await functions.show(what)
    client = await asyncio.to_thread(world.client.start, "pf0nvme0")
    try:
        tell(client, "write -P 1 0 4096")
        await asyncio.to_thread(hear, client, "wrote 4096")
        async with world.running() as functions:
            before = world.exporters()
            await functions.show(what)
            assert await functions.shown(UID) == "pf0nvme0"
            after = world.exporters()
            assert before == after != []
        tell(client, "read -P 1 0 4096", "quit")
        _out, err = await asyncio.to_thread(client.communicate, timeout=30)
        assert (client.returncode, err) == (0, "")
    finally:
        client.kill()
        await asyncio.to_thread(client.communicate)


async def test_limits_change_while_it_runs(world: World) -> None:
    what = Show(UID, "pf0nvme0", world.disk(), 512)
    async with world.running() as functions:
        await functions.show(what)
        found = world.exporters()
        for limits in (Limits(iops=50), Limits(read_bytes=MIB, write_bytes=2 * MIB), Limits()):
            await functions.show(Show(UID, "pf0nvme0", world.disk(), 512, limits))
            answer = await world.ask("qom-get", {"path": "/objects/limits", "property": "limits"})
            assert answer["iops-total"] == (limits.iops or 0)
            assert answer["bps-read"] == (limits.read_bytes or 0)
            assert answer["bps-write"] == (limits.write_bytes or 0)
        assert world.exporters() == found


async def test_killed_under_a_write_it_is_told_and_nothing_fails(world: World) -> None:
    what = Show(UID, "pf0nvme0", world.disk(), 512)
    async with world.running() as functions:
        # Slow enough that it is killed with most of them still to come.
        await functions.show(replace(what, limits=Limits(iops=100)))
        writes = [f"write -P {number % 250 + 1} {number * 65536} 65536" for number in range(200)]
        client = await asyncio.to_thread(world.client.start, "pf0nvme0")
        tell(client, *writes, "quit")
        await asyncio.to_thread(hear, client, "wrote 65536")
        (exporter,) = world.exporters()
        os.kill(exporter.pid, signal.SIGKILL)
        assert await asyncio.wait_for(world.ended.get(), 10) == UID
        assert await functions.shown(UID) is None
        await functions.show(what)
        out, err = await asyncio.to_thread(client.communicate, timeout=60)
        assert err == ""
        assert "failed" not in out
        data = world.disk().read_bytes()
        for number in range(200):
            assert data[number * 65536 : (number + 1) * 65536] == bytes([number % 250 + 1]) * 65536


async def test_away_for_longer_than_the_stall_errors_appear(world: World) -> None:
    what = Show(UID, "pf0nvme0", world.disk(), 512)
    impatient = Client(world.folder / "impatient", world.port, world.psk, stall_seconds=1)
    async with world.running() as functions:
        await functions.show(what)
        client = await asyncio.to_thread(impatient.start, "pf0nvme0")
        tell(client, "write 0 4096")
        await asyncio.to_thread(hear, client, "wrote 4096")
        await functions.hide(UID)
        tell(client, "write 0 4096", "quit")
        out, err = await asyncio.to_thread(client.communicate, timeout=60)
        assert "Input/output error" in out + err


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
async def test_the_contract(world: World, check: Check) -> None:
    await check(Subject(world.running, world.disk))


async def test_a_port_that_is_taken_is_said(world: World) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", world.port))
        other.listen()
        async with world.running() as functions:
            with pytest.raises(CarmelError) as raised:
                await functions.show(Show(UID, "pf0nvme0", world.disk(), 512))
            assert raised.value.code == "PortInUse"
            assert await functions.shown(UID) is None
