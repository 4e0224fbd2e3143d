"""What our QMP connection expects of a monitor; run on the fake and on the real QEMU."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from carmel.hypervisor.failures import QEMUNotAnswering, QMPFailed
from carmel.hypervisor.qmp import QmpConnection, QmpEvent


async def check_monitor(socket: Path) -> None:
    """``socket`` leads to the monitor of a machine that was started paused and has the name default/fake/0."""
    events: asyncio.Queue[QmpEvent] = asyncio.Queue()
    lost = asyncio.Event()
    first = QmpConnection("first", events.put_nowait, lost.set)
    await first.connect(socket, seconds=30)
    assert (await first.execute("query-status"))["status"] == "prelaunch"
    assert (await first.execute("query-name"))["name"] == "default/fake/0"
    (vcpu,) = await first.execute("query-cpus-fast")
    assert (vcpu["cpu-index"], vcpu["thread-id"] > 0) == (0, True)
    await first.execute("cont")
    assert (await asyncio.wait_for(events.get(), 10)).name == "RESUME"
    assert (await first.execute("query-status"))["status"] == "running"
    await first.execute("stop")
    stopped = await asyncio.wait_for(events.get(), 10)
    assert (stopped.name, stopped.seconds > 0) == ("STOP", True)
    with pytest.raises(QMPFailed) as caught:
        await first.execute("no-such-command")
    assert caught.value.error_class == "CommandNotFound"
    await first.close()
    assert not lost.is_set()
    with pytest.raises(QEMUNotAnswering):
        await first.execute("query-status")

    second = QmpConnection("second", events.put_nowait, lost.set)
    await second.connect(socket, seconds=10)
    assert (await second.execute("query-status"))["status"] == "paused"
    await second.execute("quit")
    await asyncio.wait_for(lost.wait(), 10)
    await second.close()
