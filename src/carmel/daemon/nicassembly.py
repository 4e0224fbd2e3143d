"""All controllers of one SmartNIC, and what they work with."""

from __future__ import annotations

from collections.abc import Mapping

from carmel.controllers.expiry import EventExpiry
from carmel.controllers.garbage import add_garbage_collector
from carmel.controllers.namespaces import add_namespace_controller
from carmel.controllers.nic.facts import NicFacts
from carmel.controllers.nic.self_status import SelfStatus
from carmel.controllers.runtime import Runtime
from carmel.daemon.nicstorage import NicStorage
from carmel.daemon.nicswitching import NicSwitching
from carmel.network.host.kernel import Link
from carmel.network.host.linkevents import LinkEvents
from carmel.network.host.netlink import Netlink
from carmel.paths import Paths
from carmel.resources.smartnic import SwitchKind
from carmel.run import Runner
from carmel.smartnic.models.model import SmartNicModel

STOP_SECONDS = 1.0
"""What passes in flight are given at a stop; a pass that is cut off is done again by the next daemon."""


class NicControllers:
    """``start`` lets them work, ``stop`` ends them within about a second."""

    def __init__(
        self,
        runtime: Runtime,
        facts: NicFacts,
        model: SmartNicModel,
        netlink: Netlink,
        paths: Paths,
        runner: Runner,
        storage: NicStorage,
        switch: SwitchKind,
    ) -> None:
        self.running = False
        self._runtime = runtime
        self._netlink = netlink
        self._storage = storage
        self._itself = SelfStatus(runtime, facts, model, self._links)
        self.switching = NicSwitching(runtime, facts, model, self._itself, paths, runner, switch)
        self._link_events = LinkEvents(netlink, self._itself.look_again)
        add_namespace_controller(runtime)
        add_garbage_collector(runtime)
        self._events = EventExpiry(runtime)

    async def start(self) -> None:
        await self._link_events.start()
        await self._itself.ensure()
        await self._itself.refresh()
        await self.switching.begin()
        await self._storage.adopt()
        await self._runtime.start()
        self.switching.start()
        self._events.start()
        self.running = True

    async def stop(self) -> None:
        self.running = False
        self._link_events.stop()
        await self._events.stop()
        await self._storage.stop_copying()
        await self._runtime.stop(STOP_SECONDS)
        await self.switching.stop()
        await self._storage.stop()

    async def _links(self) -> Mapping[str, Link]:
        return (await self._netlink.observe()).links
