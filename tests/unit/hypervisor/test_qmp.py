"""The monitor's connection, against a fake that behaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from carmel.hypervisor.failures import QEMUNotAnswering
from carmel.hypervisor.qmp import QmpConnection
from tests.fakes.qmp import FakeQemu
from tests.fakes.qmp_contract import check_monitor


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeQemu]:
    async with FakeQemu().listen(tmp_path / "qmp") as qemu:
        yield qemu


@pytest.mark.usefixtures("fake")
async def test_contract(tmp_path: Path) -> None:
    await check_monitor(tmp_path / "qmp")


async def test_a_mute_monitor_times_out(fake: FakeQemu, tmp_path: Path) -> None:
    qmp = QmpConnection("test", lambda _event: None, lambda: None)
    fake.mute = True
    with pytest.raises(QEMUNotAnswering):
        await qmp.connect(tmp_path / "qmp", seconds=0.05)
    await qmp.close()


async def test_a_command_that_is_not_answered_times_out(fake: FakeQemu, tmp_path: Path) -> None:
    qmp = QmpConnection("test", lambda _event: None, lambda: None)
    await qmp.connect(tmp_path / "qmp")
    fake.mute = True
    with pytest.raises(QEMUNotAnswering):
        await qmp.execute("query-status", seconds=0.05)
    await qmp.close()


async def test_a_lost_monitor_is_told_once(fake: FakeQemu, tmp_path: Path) -> None:
    losses: asyncio.Queue[None] = asyncio.Queue()
    qmp = QmpConnection("test", lambda _event: None, lambda: losses.put_nowait(None))
    await qmp.connect(tmp_path / "qmp")
    await fake.hang_up()
    await asyncio.wait_for(losses.get(), 5)
    await qmp.close()
    assert losses.empty()


async def test_nobody_there(tmp_path: Path) -> None:
    qmp = QmpConnection("test", lambda _event: None, lambda: None)
    with pytest.raises(QEMUNotAnswering):
        await qmp.connect(tmp_path / "nothing")
    await qmp.close()
