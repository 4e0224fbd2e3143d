"""Networks that this host switches itself: providers nat and bridge."""

from __future__ import annotations

from carmel.controllers.network.hosted_status import MEND_SECONDS, Seen, describe, looks_again
from carmel.controllers.network.hostnetworks import Switching
from carmel.controllers.network.plans import network_plan
from carmel.controllers.runtime import (
    EventKind,
    Informer,
    Key,
    Resources,
    Runtime,
    condition,
    error_message,
    find_condition,
    key_of,
    set_conditions,
)
from carmel.errors import CarmelError, Refused
from carmel.network.dataplane import DataPlane, NetworkPlan, Takeover, TakeoverStage
from carmel.network.host.plan import bridge_of
from carmel.resources.network import NETWORK, Network
from carmel.resources.port import PORT

FINALIZER = "carmel.dev/network"
_USED = "NetworkInUse"
_USED_SECONDS = 5.0


def refused_networks(networks: Informer) -> list[Key]:
    """Networks that something is said against. What another that is gone had (a subnet, an uplink) may be what."""
    return [
        key_of(stored)
        for stored in networks
        if any(one.get("status") == "False" for one in stored.json().get("status", {}).get("conditions") or [])
    ]


class HostedNetworks:
    """One network at a time: what it needs is made, kept and removed, and its status says how that goes."""

    def __init__(self, runtime: Runtime, host: Switching, resources: Resources[Network]) -> None:
        self._runtime = runtime
        self._host = host
        self._resources = resources
        self._ports = runtime.informer(PORT)
        self._ensured: dict[str, tuple[NetworkPlan, float]] = {}

    async def settle(self, network: Network) -> float | None:
        """Answers in how many seconds to look again."""
        if network.metadata.deletion_timestamp is not None:
            return await self.let_go(network)
        plan = network_plan(network)
        refusal: CarmelError | None = None
        taken: Takeover | None = None
        backend: str | None = None
        try:
            plane = await self._host.plane()
            backend = plane.backend
            network = await self._resources.add_finalizer(network, FINALIZER)
            try:
                await self._ensure(plan, plane)
            finally:
                taken = await self._takeover(network, plan, plane)
        except Refused as error:
            refusal = error
        return await self._show(network, Seen(plan, taken, refusal, self._count(network), backend))

    async def _ensure(self, plan: NetworkPlan, plane: DataPlane) -> None:
        """Not at each Port that comes or goes, unless an uplink may have been put back meanwhile."""
        if plan.uplink is not None and plan.uplink.takeover:
            await plane.ensure_network(plan)
            return
        now = self._runtime.clock.monotonic()
        before = self._ensured.pop(plan.name, None)
        if before is None or before[0] != plan or now >= before[1]:
            await plane.ensure_network(plan)
            before = (plan, now + MEND_SECONDS - 1.0)
        self._ensured[plan.name] = before

    async def _takeover(self, network: Network, plan: NetworkPlan, plane: DataPlane) -> Takeover | None:
        """How it goes, after it was confirmed if somebody does."""
        taken = await plane.takeover(plan)
        bridge = network.spec.bridge
        if taken is None or taken.stage is not TakeoverStage.WAITING or bridge is None or bridge.confirmed_at is None:
            return taken
        if bridge.confirmed_at <= taken.started_at.replace(microsecond=0):
            return taken
        await plane.confirm(network.metadata.name)
        return await plane.takeover(plan)

    async def let_go(self, network: Network) -> float | None:
        """It is another's to switch by now, or is being deleted: remove what it has here."""
        if FINALIZER not in (network.metadata.finalizers or []):
            return None
        self._ensured.pop(network.metadata.name, None)
        try:
            plane = await self._host.plane()
            await plane.remove_network(network.metadata.name)
        except Refused as error:
            if self._host.begun:
                await self._show_blocked(network, error)
                return _USED_SECONDS
            # What this daemon may not have it has not made.
        await self._resources.remove_finalizer(network, FINALIZER)
        return None

    def _count(self, network: Network) -> int:
        name = network.metadata.name
        specs = (port.json()["spec"] for port in self._ports)
        return sum(spec["networkRef"]["name"] == name and not spec.get("remote") for spec in specs)

    # -- what is shown --------------------------------------------------------------------------------------------
    async def _show(self, network: Network, seen: Seen) -> float | None:
        now = self._runtime.clock.now()
        before = find_condition(network.status, "Ready")
        shown = await self._resources.update_status(network, lambda one: describe(one, seen, bridge_of(seen.plan), now))
        ready = find_condition(shown.status, "Ready")
        if ready is not None and ready.status == "False" and (before is None or before.reason != ready.reason):
            self._runtime.events.record(NETWORK, network, EventKind.WARNING, ready.reason, ready.message)
        return looks_again(seen, now)

    async def _show_blocked(self, network: Network, error: CarmelError) -> None:
        """It cannot go yet."""

        def change(one: Network) -> None:
            blocked = condition("Removable", "False", error.code, error_message(error))
            set_conditions(one.status, [blocked], self._runtime.clock.now())

        await self._resources.update_status(network, change)
