"""Volumes that are exports of a server which comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from carmel.controllers.datastore import Datastores
from carmel.controllers.runtime import Runtime
from carmel.controllers.volume import VolumeController
from carmel.controllers.volume_export import Exports
from carmel.errors import Unavailable
from carmel.resources.base import LocalReference, ObjectMeta
from carmel.resources.volume import VOLUME, Volume, VolumeSpec
from tests.fakes.clock import FakeClock
from tests.stores import open_store


class Away:
    """A server that does not answer."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self.clock = FakeClock()

    async def capacity(self, _volume: Volume, _others: Sequence[Volume]) -> int:
        self.asked.append(self.clock.monotonic())
        raise Unavailable("no NBD server answers", code="ServerAway")


async def test_a_server_that_was_away_for_long_is_soon_found_when_it_is_back(tmp_path: Path) -> None:
    async with open_store(tmp_path, "default") as store:
        away = Away()
        runtime = Runtime(store, "host", clock=away.clock)
        VolumeController(runtime, Datastores(), cast("Exports", away))
        spec = VolumeSpec(datastore_ref=LocalReference(name="nic"), export="pf0nvme0")
        volumes = runtime.resources(VOLUME, Volume)
        await volumes.create(Volume(metadata=ObjectMeta(name="boot", namespace="default"), spec=spec))
        await runtime.start()
        try:
            async with asyncio.timeout(30):
                # In small steps: the store works by a clock that nobody turns.
                while len(away.asked) < 10:
                    await away.clock.advance(0.05)
        finally:
            await runtime.stop(0.1)
        assert away.asked[-1] - away.asked[-2] < 15
