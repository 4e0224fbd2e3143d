"""The emulated NIC's NVMe functions, with the real qemu-storage-daemon."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
from dataclasses import replace

import pytest

from carmel.errors import CarmelError
from carmel.hypervisor.psk import Psk
from carmel.smartnic.nvme.functions import Limits, Show
from carmel.units import MIB
from tests.fakes.nvme_contract import CONTRACT, UID, Check, Subject
from tests.system.smartnic.nvme.conftest import NicWorld
from tests.system.smartnic.nvme.nbd import Client, hear, tell


async def io(client: Client, *commands: str, export: str = "pf0nvme0") -> str:
    """It has to end well."""
    done = await asyncio.to_thread(client.io, export, *commands)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_a_namespace_is_shown_with_tls_to_who_has_the_key(nic: NicWorld) -> None:
    async with nic.running() as functions:
        await functions.show(Show(UID, "pf0nvme0", nic.disk(), 512))
        assert await functions.shown(UID) == "pf0nvme0"
        await io(nic.client, "write -P 7 4096 8192", "read -P 7 4096 8192")
        assert nic.disk().read_bytes()[4096:12288] == b"\x07" * 8192
        stranger = Client(nic.folder / "stranger", nic.port, Psk("carmel", secrets.token_hex(32)))
        refused = await asyncio.to_thread(stranger.io, "pf0nvme0", "read 0 512")
        assert refused.returncode != 0
        assert "TLS handshake failed" in refused.stderr
        await functions.hide(UID)
        assert await functions.shown(UID) is None


async def test_the_next_daemon_finds_it_and_changes_nothing(nic: NicWorld) -> None:
    what = Show(UID, "pf0nvme0", nic.disk(), 512)
    async with nic.running() as functions:
        await functions.show(what)
    client = await asyncio.to_thread(nic.client.start, "pf0nvme0")
    try:
        tell(client, "write -P 1 0 4096")
        await asyncio.to_thread(hear, client, "wrote 4096")
        async with nic.running() as functions:
            before = nic.exporters()
            await functions.show(what)
            assert await functions.shown(UID) == "pf0nvme0"
            after = nic.exporters()
            assert before == after != []
        tell(client, "read -P 1 0 4096", "quit")
        _out, err = await asyncio.to_thread(client.communicate, timeout=30)
        assert (client.returncode, err) == (0, "")
    finally:
        client.kill()
        await asyncio.to_thread(client.communicate)


async def test_limits_change_while_it_runs(nic: NicWorld) -> None:
    what = Show(UID, "pf0nvme0", nic.disk(), 512)
    async with nic.running() as functions:
        await functions.show(what)
        found = nic.exporters()
        for limits in (Limits(iops=50), Limits(read_bytes=MIB, write_bytes=2 * MIB), Limits()):
            await functions.show(Show(UID, "pf0nvme0", nic.disk(), 512, limits))
            answer = await nic.ask("qom-get", {"path": "/objects/limits", "property": "limits"})
            assert answer["iops-total"] == (limits.iops or 0)
            assert answer["bps-read"] == (limits.read_bytes or 0)
            assert answer["bps-write"] == (limits.write_bytes or 0)
        assert nic.exporters() == found


async def test_killed_under_a_write_it_is_told_and_nothing_fails(nic: NicWorld) -> None:
    what = Show(UID, "pf0nvme0", nic.disk(), 512)
    async with nic.running() as functions:
        # Slow enough that it is killed with most of them still to come.
        await functions.show(replace(what, limits=Limits(iops=100)))
        writes = [f"write -P {number % 250 + 1} {number * 65536} 65536" for number in range(200)]
        client = await asyncio.to_thread(nic.client.start, "pf0nvme0")
        tell(client, *writes, "quit")
        await asyncio.to_thread(hear, client, "wrote 65536")
        (exporter,) = nic.exporters()
        os.kill(exporter.pid, signal.SIGKILL)
        assert await asyncio.wait_for(nic.ended.get(), 10) == UID
        assert await functions.shown(UID) is None
        await functions.show(what)
        out, err = await asyncio.to_thread(client.communicate, timeout=60)
        assert err == ""
        assert "failed" not in out
        data = nic.disk().read_bytes()
        for number in range(200):
            assert data[number * 65536 : (number + 1) * 65536] == bytes([number % 250 + 1]) * 65536


async def test_away_for_longer_than_the_stall_errors_appear(nic: NicWorld) -> None:
    what = Show(UID, "pf0nvme0", nic.disk(), 512)
    impatient = Client(nic.folder / "impatient", nic.port, nic.psk, stall_seconds=1)
    async with nic.running() as functions:
        await functions.show(what)
        client = await asyncio.to_thread(impatient.start, "pf0nvme0")
        tell(client, "write 0 4096")
        await asyncio.to_thread(hear, client, "wrote 4096")
        await functions.hide(UID)
        tell(client, "write 0 4096", "quit")
        out, err = await asyncio.to_thread(client.communicate, timeout=60)
        assert "Input/output error" in out + err


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
async def test_the_contract(nic: NicWorld, check: Check) -> None:
    await check(Subject(nic.running, nic.disk))


async def test_a_port_that_is_taken_is_said(nic: NicWorld) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", nic.port))
        other.listen()
        async with nic.running() as functions:
            with pytest.raises(CarmelError) as raised:
                await functions.show(Show(UID, "pf0nvme0", nic.disk(), 512))
            assert raised.value.code == "PortInUse"
            assert await functions.shown(UID) is None


async def test_an_address_that_is_not_there_is_waited_for(nic: NicWorld) -> None:
    nic.address = "192.0.2.1"
    async with nic.running() as functions:
        with pytest.raises(CarmelError) as raised:
            await functions.show(Show(UID, "pf0nvme0", nic.disk(), 512))
        assert (raised.value.code, raised.value.retryable) == ("AddressMissing", True)
