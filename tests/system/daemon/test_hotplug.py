"""The kernel's own events of CPUs reach the daemon's loop."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from carmel.controllers.placement.hotplug import Hotplug

EVENT = Path("/sys/devices/system/cpu/cpu0/uevent")
"""What is written here the kernel tells as an event of that CPU (Documentation/ABI/testing/sysfs-uevent)."""


@pytest.mark.skipif(not os.access(EVENT, os.W_OK), reason=f"{EVENT} is not there, or not ours to write")
async def test_an_event_of_a_cpu_is_told() -> None:
    told = asyncio.Event()
    hotplug = Hotplug(told.set, lambda: None)
    hotplug.start()
    try:
        await asyncio.to_thread(EVENT.write_text, "change")
        async with asyncio.timeout(10):
            await told.wait()
    finally:
        hotplug.stop()
    hotplug.stop()
