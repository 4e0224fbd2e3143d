"""One emulated NIC's NVMe functions, and disks to show, for tests with the real qemu-storage-daemon."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from carmel.hypervisor.account import Account
from carmel.hypervisor.processes import process_table
from carmel.hypervisor.psk import Psk
from carmel.hypervisor.qmp import QmpConnection
from carmel.hypervisor.record import ProcessId
from carmel.paths import Paths
from carmel.run import SystemRunner
from carmel.smartnic.nvme.emulated import EmulatedNvme
from carmel.smartnic.nvme.export import Listen, below
from carmel.units import MIB
from tests.fakes.nvme_contract import OTHER, UID
from tests.system.smartnic.nvme.nbd import Client


def free_ports(count: int) -> int:
    """The first of ``count`` ports in a row that nobody has; below those that connections get (ip-sysctl.rst,
    ip_local_port_range), or somebody's connection could have one of them by the time that it is used."""
    for first in random.SystemRandom().sample(range(15000, 30000), 100):
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


class NicWorld:
    """One NIC's functions, and disks to show."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths = Paths(folder / "state", folder / "run", folder / "cache")
        self.psk = Psk("carmel", secrets.token_hex(32))
        self.address = "127.0.0.1"
        self.port = free_ports(2)
        self.ended: asyncio.Queue[str] = asyncio.Queue()
        self.client = Client(folder / "client", self.port, self.psk)
        for place in (self.paths.state, self.paths.runtime):
            place.mkdir(parents=True)
        for place in (folder, self.paths.state, self.paths.runtime):
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
            Listen(self.address, self.port),
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
async def nic() -> AsyncIterator[NicWorld]:
    # QEMU's account looks a key up at each handshake, on the way that it has at that moment. pytest closes its own
    # folder to others whenever a session begins.
    with tempfile.TemporaryDirectory(prefix="carmel-nvme-") as name:
        opened = NicWorld(Path(name))
        yield opened
        left = opened.functions()
        await left.adopt([])
        await left.aclose()
        assert process_table().find(lambda words: any(name in word for word in words)) == []
