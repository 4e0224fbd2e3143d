"""The micro guest on a network of provider user, by each back end that works here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from carmel.network.backends import PROGRAM, Backend
from carmel.network.passt_probe import SPEAKS_LATE, find_fault
from carmel.network.ports import can_bind
from carmel.network.user import NicPlan, plan_nics
from carmel.resources.base import LocalReference, ObjectMeta
from carmel.resources.network import Network, NetworkSpec, UserNetwork
from carmel.resources.virtualmachine import Forward, NetworkInterface
from carmel.run import SystemRunner, find_program
from tests.micro import micro_bundle

NOBODY = 65534
WHO = NOBODY if os.geteuid() == 0 else None
ECHO, GREETER = 7777, 7778
"""Of servers in the guest: one waits for its client's words, the other speaks first."""
GREETING = b"welcome"
_BOOT_SECONDS = 90


def plan(backend: Backend, folder: Path) -> NicPlan:
    forwards = [Forward(guest_port=port) for port in (ECHO, GREETER)]
    nic = NetworkInterface(name="net0", network_ref=LocalReference(name="default"), forwards=forwards)
    network = Network(metadata=ObjectMeta(name="default"), spec=NetworkSpec(user=UserNetwork(subnet="10.9.8.0/24")))
    return plan_nics("test", "guest", [(0, nic, network)], (), {0: folder / "net0"}, backend, can_bind)[0]


@contextlib.asynccontextmanager
async def helper(nic: NicPlan, folder: Path) -> AsyncIterator[None]:
    """The NIC's helper, as a user without rights where we are root; it is gone afterwards."""
    if nic.helper is None:
        yield
        return
    if WHO is not None:
        os.chown(folder, WHO, WHO)
    process = await asyncio.create_subprocess_exec(
        *nic.helper.argv, user=WHO, group=WHO, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(10):
            while not nic.helper.socket.exists():
                assert process.returncode is None
                await asyncio.sleep(0.01)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.asynccontextmanager
async def guest(nic: NicPlan) -> AsyncIterator[asyncio.subprocess.Process]:
    bundle = await micro_bundle()
    process = await asyncio.create_subprocess_exec(
        "qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a57", "-m", "256", "-nodefaults", "-no-user-config",
        "-nographic", "-no-reboot", "-kernel", bundle.kernel, "-initrd", bundle.initrd,
        "-append", f"{bundle.command_line} carmel.nonce=n1", "-serial", "stdio",
        "-netdev", json.dumps({**nic.netdev, "id": "n"}), "-device", f"virtio-net-pci,netdev=n,mac={nic.mac},romfile=",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def until(process: asyncio.subprocess.Process, word: bytes) -> bytes:
    """What the guest's console said up to ``word`` and its line's end."""
    assert process.stdout is not None
    said = b""
    async with asyncio.timeout(_BOOT_SECONDS):
        while word not in said or b"\n" not in said.split(word, 1)[1]:
            chunk = await process.stdout.read(4096)
            assert chunk, said[-2000:]
            said += chunk
    return said


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short, for sockets, and with no closed door on the way for a user without rights."""
    with tempfile.TemporaryDirectory(prefix="cn") as name:
        yield Path(name)


async def passt_fault() -> str | None:
    """What speaks against the installed passt; skips where there is none, or it does not even start."""
    program = find_program(PROGRAM)
    if program is None:
        pytest.skip("passt is not installed")
    fault = await find_fault(SystemRunner(), program, user=WHO, group=WHO)
    if fault not in (None, SPEAKS_LATE):
        pytest.skip(fault)
    return fault


@pytest.mark.parametrize("backend", list(Backend))
async def test_the_guest_gets_its_address_and_is_reached_by_its_forward(backend: Backend, folder: Path) -> None:
    speaks_late = backend is Backend.PASST and await passt_fault() is not None
    nic = plan(backend, folder)
    async with helper(nic, folder), guest(nic) as process:
        said = await until(process, b"ready nonce=n1")
        assert f"address={nic.address}".encode() in said.split(b"ready nonce=n1", 1)[1]
        await tell(process, f"nc -l -p {ECHO} -e cat & nc -l -p {GREETER} -e echo {GREETING.decode()} &")
        echo, greeter = (forward.host_port for forward in nic.forwards)
        # Once the one answers, nothing but the back end is in the other's way.
        assert await heard(echo, b"over the forward") == b"over the forward"
        # The probe said what a real guest and a real client meet.
        assert await heard(greeter, seconds=3 if speaks_late else 30) == (b"" if speaks_late else GREETING + b"\n")


async def test_the_probe_ends_and_leaves_nothing() -> None:
    before = children()
    async with asyncio.timeout(10):
        await passt_fault()
    assert children() <= before


def children() -> set[str]:
    """The pids of this process's children, ended or not."""
    tasks = Path("/proc/self/task").iterdir()
    return set(" ".join((task / "children").read_text() for task in tasks).split())


async def tell(process: asyncio.subprocess.Process, command: str) -> None:
    """Have the guest's shell run it."""
    assert process.stdin is not None
    process.stdin.write(f"{command} echo do''ne\n".encode())
    await until(process, b"done")


async def heard(port: int, words: bytes = b"", *, seconds: float = 30) -> bytes:
    """What a client of ``port`` gets that says ``words``: empty if that is nothing for as long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                with contextlib.suppress(OSError):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port, family=socket.AF_INET)
                    try:
                        writer.write(words)
                        answer = await reader.read(100)
                    finally:
                        writer.transport.abort()
                    if answer:
                        return answer
                await asyncio.sleep(0.1)
    return b""
