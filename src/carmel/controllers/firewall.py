"""The firewall: all policies and all ports make one ruleset, which is loaded whole whenever something changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence

from carmel.controllers.firewall_policies import Known, PolicyCache
from carmel.controllers.firewall_status import Seen, seen_of, status_write
from carmel.controllers.runtime import ControllerSpec, EventKind, Key, Runtime
from carmel.errors import CarmelError, Conflict, NotFound, Refused
from carmel.network.firewall import Count, FirewallDataPlane, PortBinding, PortSource, RuleRef, Ruleset, assemble
from carmel.resources.core import NAMESPACE
from carmel.resources.firewallpolicy import FIREWALL_POLICY, FirewallPolicy
from carmel.store.protocol import Stored, WriteOptions

_log = logging.getLogger(__name__)

ALL = Key(None, "firewall")
"""The one thing that passes are over: rules are loaded together, whatever changed."""

_COUNT_SECONDS = 30.0
_GATHER_SECONDS = 0.02
"""What changes within this much of a first change is loaded with it."""
_TOLD_POLICIES = 20
_WRITTEN = WriteOptions(manager="firewall-controller")


class FirewallController:
    """``source`` says which ports there are, and when they changed."""

    def __init__(self, runtime: Runtime, data_plane: FirewallDataPlane, source: PortSource) -> None:
        self._runtime = runtime
        self._data_plane = data_plane
        self._source = source
        self._cache = PolicyCache()
        self._compiling = asyncio.Lock()
        self._compiled: Mapping[Key, Known] = {}
        self._shown: dict[Key, Seen] = {}
        self._in_force = False
        self._touched_by: str | None = None
        self._policies = runtime.informer(FIREWALL_POLICY)
        self._namespaces = runtime.informer(NAMESPACE)
        self._controller = runtime.add(
            ControllerSpec("firewall", FIREWALL_POLICY, self.reconcile, workers=1, on_failure=self._failed)
        )
        self._namespaces.listen(lambda _change: self.ports_changed())
        source.on_change(self.ports_changed)
        data_plane.watch(self._touched)

    def ports_changed(self) -> None:
        """Ports came, went or changed, or labels of VMs or namespaces did."""
        self._controller.enqueue_after(ALL, _GATHER_SECONDS)

    async def prepare(self) -> None:
        """Have the firewall in force before the first port is plugged: it then gets nothing through until its rules
        are there. Raises ``Refused`` where this machine has no firewall: a port plugged all the same would be open."""
        if not self._in_force:
            await self._data_plane.close_unknown()
            self._in_force = True

    async def admit(self, namespace: str, labels: Mapping[str, str]) -> None:
        """Have the firewall in force, or be sure that a VM with these labels needs none: no policy selects it, so
        everything is allowed. Raises ``Refused`` otherwise: its ports would be open that are not to be."""
        try:
            await self.prepare()
        except Refused:
            selecting = (one.policy for key, one in self._compiled.items() if key.namespace == namespace)
            if any(policy.vm_selector.matches(labels) for policy in selecting):
                raise

    async def reconcile(self, key: Key) -> float | None:
        if key != ALL:
            self._controller.enqueue_after(ALL, _GATHER_SECONDS)
            return None
        ports = self._source.bindings()
        ruleset = await self._ruleset(ports)
        if self._in_force or any(port.interface is not None for port in ports):
            try:
                await self._data_plane.load(ruleset)
            except Refused:
                if self._compiled:
                    raise
                # Without a policy nothing is missing where there is no firewall.
                return None
            self._in_force = True
            await self._tell_who_touched_it()
        counted = await self._data_plane.counters() if self._in_force else {}
        await self._show(ruleset, counted)
        return _COUNT_SECONDS if self._in_force else None

    async def _ruleset(self, ports: Sequence[PortBinding]) -> Ruleset:
        """Off the event loop, as policies may have thousands of rules."""
        async with self._compiling:
            policies, namespaces = list(self._policies), list(self._namespaces)
            self._compiled, ruleset = await asyncio.to_thread(_make, self._cache, policies, ports, namespaces)
            return ruleset

    # -- what others do -----------------------------------------------------------------------------------------
    def _touched(self, who: str | None) -> None:
        """Put back at once: whoever flushes the rules opens all ports."""
        if who is not None:
            _log.warning("the firewall's rules in the kernel were changed by %s: they are put back", who)
            self._touched_by = who
        self._controller.enqueue(ALL)

    async def _tell_who_touched_it(self) -> None:
        who, self._touched_by = self._touched_by, None
        if who is None:
            return
        message = f"{who} changed the firewall's rules in the kernel; they were put back"
        in_force = [key for key, seen in self._shown.items() if seen.ports]
        for key in in_force[:_TOLD_POLICIES]:
            stored = self._policies.get(key)
            if stored is not None:
                named = FirewallPolicy.model_validate({"metadata": stored.json()["metadata"]})
                self._runtime.events.record(FIREWALL_POLICY, named, EventKind.WARNING, "RulesPutBack", message)

    # -- what is shown ------------------------------------------------------------------------------------------
    async def _show(self, ruleset: Ruleset, counted: Mapping[RuleRef, Count], error: CarmelError | None = None) -> None:
        seen = await asyncio.to_thread(seen_of, self._compiled, ruleset, self._source.vms(), counted, error)
        # Not even read again if nothing new is to be said: it may be large.
        self._shown = {
            key: one for key, one in seen.items() if self._shown.get(key) == one or await self._write(key, one)
        }

    async def _write(self, key: Key, seen: Seen) -> bool:
        """Whether it is said now. What changes meanwhile is looked at in the next pass, which that brings about."""
        stored = self._policies.get(key)
        if stored is None:
            return False
        wanted = await asyncio.to_thread(status_write, stored, seen, self._runtime.clock.now())
        if wanted is None:
            return True
        try:
            await self._runtime.store.replace(FIREWALL_POLICY, wanted, subresource="status", options=_WRITTEN)
        except (Conflict, NotFound):
            return False
        return True

    async def _failed(self, key: Key, error: CarmelError, _count: int) -> None:
        if key == ALL:
            ruleset = await self._ruleset(self._source.bindings())
            await self._show(ruleset, {}, error)


def _make(
    cache: PolicyCache, policies: Iterable[Stored], ports: Sequence[PortBinding], namespaces: Iterable[Stored]
) -> tuple[Mapping[Key, Known], Ruleset]:
    compiled = cache.compiled(policies)
    labels = {stored.name: stored.json()["metadata"].get("labels") or {} for stored in namespaces}
    return compiled, assemble([one.policy for one in compiled.values()], ports, labels)
