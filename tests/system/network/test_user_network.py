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

from carmel.network.backends import Backend, Backends
from carmel.network.ports import can_bind
from carmel.network.user import NicPlan, plan_nics
from carmel.resources.base import LocalReference, ObjectMeta
from carmel.resources.network import Network, NetworkSpec, UserNetwork
from carmel.resources.virtualmachine import Forward, NetworkInterface
from carmel.run import SystemRunner
from tests.micro import micro_bundle

NOBODY = 65534
_BOOT_SECONDS = 90


def plan(backend: Backend, folder: Path) -> NicPlan:
    nic = NetworkInterface(
        name="net0", network_ref=LocalReference(name="default"), forwards=[Forward(name="echo", guest_port=7777)]
    )
    network = Network(metadata=ObjectMeta(name="default"), spec=NetworkSpec(user=UserNetwork(subnet="10.9.8.0/24")))
    return plan_nics("test", "guest", [(nic, network)], (), [folder / "net0"], backend, can_bind)[0]


@contextlib.asynccontextmanager
async def helper(nic: NicPlan, folder: Path) -> AsyncIterator[None]:
    """The NIC's helper, as a user without rights where we are root; it is gone afterwards."""
    if nic.helper is None:
        yield
        return
    who = NOBODY if os.geteuid() == 0 else None
    if who is not None:
        os.chown(folder, who, who)
    process = await asyncio.create_subprocess_exec(
        *nic.helper.argv, user=who, group=who, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
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
        "-netdev", json.dumps({**nic.netdev, "id": "n"}), "-device", f"virtio-net-pci,netdev=n,mac={nic.mac}",
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


@pytest.mark.parametrize("backend", list(Backend))
async def test_the_guest_gets_its_address_and_is_reached_by_its_forward(backend: Backend, folder: Path) -> None:
    who = NOBODY if os.geteuid() == 0 else None
    if backend is Backend.PASST and await Backends(SystemRunner(), user=who, group=who).best() is not Backend.PASST:
        pytest.skip("passt does not work on this machine")
    nic = plan(backend, folder)
    async with helper(nic, folder), guest(nic) as process:
        said = await until(process, b"ready nonce=n1")
        assert f"address={nic.address}".encode() in said.split(b"ready nonce=n1", 1)[1]
        assert process.stdin is not None
        process.stdin.write(b"nc -l -p 7777 -e cat & echo lis''tening\n")
        await until(process, b"listening")
        assert await echoed(nic.forwards[0].host_port) == b"over the forward"


async def echoed(port: int) -> bytes:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, family=socket.AF_INET)
                try:
                    writer.write(b"over the forward")
                    answer = await reader.read(100)
                finally:
                    writer.close()
                if answer:
                    return answer
            await asyncio.sleep(0.1)
