"""A hypervisor with directories of its own, and the proof that nothing of it is left."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from carmel.hypervisor.config import CpuConfig, KernelFirmware, MachineConfig
from carmel.hypervisor.machine import ConsoleStream, Machine, MachineState
from carmel.hypervisor.processes import process_table
from carmel.hypervisor.qemu import QemuHypervisor
from carmel.paths import Paths
from carmel.run import SystemRunner
from carmel.storage.build import KernelBundle
from tests.micro import micro_bundle

GUEST_SECONDS = 60.0


@pytest.fixture
def paths() -> Iterator[Paths]:
    # QEMU's user must be able to pass; pytest's own directories are closed to others.
    root = Path(tempfile.mkdtemp(prefix="carmel-"))
    root.chmod(0o711)
    paths = Paths(root / "state", root / "run", root / "cache")
    yield paths
    left = process_table().find(lambda words: any(str(root) in word for word in words))
    shutil.rmtree(root)
    assert left == []


@dataclass
class House:
    """Makes hypervisors on the same directories, one after the other as daemons are, and closes them."""

    paths: Paths

    def __post_init__(self) -> None:
        self._open: list[QemuHypervisor] = []

    def hypervisor(self, **options: object) -> QemuHypervisor:
        made = QemuHypervisor(self.paths, SystemRunner(), **options)  # type: ignore[arg-type]
        self._open.append(made)
        return made

    async def close(self) -> None:
        for hypervisor in self._open:
            await hypervisor.close()
        last = QemuHypervisor(self.paths, SystemRunner())
        for machine in await last.adopt():
            await machine.kill("the test is over")
        await last.close()


@pytest.fixture
async def house(paths: Paths) -> AsyncIterator[House]:
    house = House(paths)
    yield house
    await house.close()
    assert list((paths.runtime / "vm").glob("*")) == []
    assert list(paths.machines.glob("*/launch.json")) == []


@pytest.fixture
async def bundle() -> KernelBundle:
    return await micro_bundle()


HUGE_PAGE = 2 * 1024**2
HUGE_POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")


@pytest.fixture
def huge_pages() -> Iterator[None]:
    """A pool of 64 MiB of huge pages, as far as this machine lets us have one."""
    if not os.access(HUGE_POOL, os.W_OK):
        pytest.skip("only root can reserve huge pages")
    before, wanted = int(HUGE_POOL.read_text()), 32
    HUGE_POOL.write_text(str(before + wanted))
    try:
        if int(HUGE_POOL.read_text()) < before + wanted:
            pytest.skip("this machine's memory is too scattered for huge pages")
        yield
    finally:
        HUGE_POOL.write_text(str(before))


ConfigMaker = Callable[..., MachineConfig]


@pytest.fixture
def make_config(bundle: KernelBundle) -> ConfigMaker:
    def make(**changes: object) -> MachineConfig:
        uid = str(uuid.uuid4())
        firmware = KernelFirmware(bundle.kernel, bundle.initrd, f"{bundle.command_line} carmel.nonce=n{os.getpid()}")
        values: dict[str, object] = {
            "uid": uid,
            "name": "test",
            "namespace": "default",
            "bios_uuid": uid,
            "cpu": CpuConfig(1, 1, 1, 1, 1),
            "memory_bytes": 192 * 1024**2,
            "firmware": firmware,
        }
        return MachineConfig(**{**values, **changes})  # type: ignore[arg-type]

    return make


async def until_prompt(hypervisor: QemuHypervisor, uid: str) -> None:
    """Until a shell reads: what is typed earlier is thrown away by the guest."""
    await read_until(hypervisor, uid, b"/root# ", whole_line=False)


async def read_until(hypervisor: QemuHypervisor, uid: str, text: bytes, *, whole_line: bool = True) -> bytes:
    """What the serial console says, up to and with ``text`` and the rest of its line."""
    stream = await hypervisor.open_console(uid)
    seen = b""
    try:
        async with asyncio.timeout(GUEST_SECONDS):
            while text not in seen or (whole_line and b"\n" not in seen.partition(text)[2]):
                data = await stream.read()
                assert data, f"the console ended after {seen[-500:]!r}"
                seen += data
    finally:
        await stream.close()
    return seen


async def answer(stream: ConsoleStream, typed: bytes, wanted: bytes) -> bytes:
    """Type, and read until ``wanted`` came; it may come in pieces. QEMU's log of the console may be a little behind."""
    await stream.write(typed)
    seen = b""
    async with asyncio.timeout(GUEST_SECONDS):
        while wanted not in seen:
            data = await stream.read()
            assert data, f"the console ended after {seen[-500:]!r}"
            seen += data
    return seen


def boot_id(console: bytes) -> bytes:
    return console.rpartition(b"boot-id=")[2].split()[0]


async def until_state(hypervisor: QemuHypervisor, machine: Machine, state: MachineState) -> None:
    async with asyncio.timeout(GUEST_SECONDS), hypervisor.changes() as changes:
        if machine.state is state:
            return
        async for _change in changes:
            if machine.state is state:
                return
