"""Counts what passes through a SmartNIC's ports, now and then."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Mapping

from carmel.cancellation import end_tasks
from carmel.controllers.nic.networks import NicSwitch
from carmel.controllers.nic.ports import NicPortController
from carmel.controllers.nic.portstatus import show_counts
from carmel.controllers.runtime import Key, Runtime
from carmel.controllers.runtime.clock import sleep
from carmel.controllers.runtime.metrics import Sample
from carmel.errors import CarmelError, NotFound
from carmel.network.dataplane import PortCount
from carmel.resources.port import PORT, Port

_log = logging.getLogger(__name__)

COUNT_SECONDS = 10.0
_FAMILIES = {
    "received_packets": "Packets that the port's VM received.",
    "received_bytes": "Bytes that the port's VM received.",
    "sent_packets": "Packets that the port's VM sent.",
    "sent_bytes": "Bytes that the port's VM sent.",
    "dropped_packets": "Packets of the port's VM that the source guard dropped.",
}


class PortCounting:
    """Writes counters and addresses into the ports' status, and has them for ``/metrics``."""

    def __init__(self, runtime: Runtime, ports: NicPortController, switch: NicSwitch) -> None:
        self._runtime = runtime
        self._plugged = ports.plugged
        self._switch = switch
        self._resources = runtime.resources(PORT, Port, manager="port-controller")
        self._last: Mapping[Key, PortCount] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="port counting")

    async def stop(self) -> None:
        await end_tasks(self._task)

    async def _run(self) -> None:
        while True:
            await sleep(self._runtime.clock, COUNT_SECONDS)
            try:
                await self.count()
            except CarmelError as error:
                _log.warning("ports could not be counted: %s", error)

    async def count(self) -> None:
        """Once. Nothing plugged, nothing asked."""
        plugged = dict(self._plugged)
        if not plugged:
            self._last = {}
            return
        plane = await self._switch.plane()
        counts, addresses = await plane.counters(), await plane.addresses()
        self._last = {key: counts[plan.interface] for key, plan in plugged.items() if plan.interface in counts}
        for key, count in self._last.items():
            interface = plugged[key].interface
            await self._write(key, interface, count, sorted(map(str, addresses.get(interface, ()))))

    async def _write(self, key: Key, interface: str, count: PortCount, addresses: list[str]) -> None:
        port = await self._resources.find(key)
        if port is None:
            return
        now = self._runtime.clock.now()
        with contextlib.suppress(NotFound):
            await self._resources.update_status(port, lambda one: show_counts(one, interface, count, addresses, now))

    def metrics(self) -> Iterator[Sample]:
        for field, text in _FAMILIES.items():
            name = f"carmel_port_{field}_total"
            for key, count in self._last.items():
                labels = (("name", key.name), ("namespace", key.namespace or ""))
                yield Sample(name, "counter", text, name, labels, getattr(count, field))
