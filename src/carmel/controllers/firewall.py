"""The firewall: all policies and all ports make one ruleset, which is loaded whole whenever something changes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from carmel.controllers.firewall_status import Seen, describe
from carmel.controllers.runtime import ControllerSpec, Key, Resources, Runtime, key_of
from carmel.errors import CarmelError, NotFound
from carmel.network.firewall import (
    CompiledPolicy,
    Count,
    FirewallDataPlane,
    PolicyRef,
    PortBinding,
    PortSource,
    RuleRef,
    Ruleset,
    assemble,
    compile_policy,
    refused_policy,
)
from carmel.resources.base import JsonObject
from carmel.resources.core import NAMESPACE
from carmel.resources.firewallpolicy import FIREWALL_POLICY, FirewallPolicy
from carmel.resources.virtualmachine import VIRTUAL_MACHINE

_log = logging.getLogger(__name__)

ALL = Key(None, "firewall")
"""The one thing that passes are over: rules are loaded together, whatever changed."""

_COUNT_SECONDS = 30.0
_GATHER_SECONDS = 0.02
"""What changes within this much of a first change is loaded with it."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    uid: str | None
    generation: int | None
    policy: CompiledPolicy
    error: CarmelError | None = None


class FirewallController:
    """``source`` says which ports there are; who knows that they changed calls ``ports_changed``."""

    def __init__(self, runtime: Runtime, data_plane: FirewallDataPlane, source: PortSource) -> None:
        self._runtime = runtime
        self._data_plane = data_plane
        self._source = source
        self._compiled: dict[Key, _Compiled] = {}
        self._in_force = False
        self._resources: Resources[FirewallPolicy] = runtime.resources(
            FIREWALL_POLICY, FirewallPolicy, manager="firewall-controller"
        )
        self._policies = runtime.informer(FIREWALL_POLICY)
        self._namespaces = runtime.informer(NAMESPACE)
        self._vms = runtime.informer(VIRTUAL_MACHINE)
        self._controller = runtime.add(
            ControllerSpec("firewall", FIREWALL_POLICY, self.reconcile, workers=1, on_failure=self._failed)
        )
        for informer in (self._namespaces, self._vms):
            informer.listen(lambda _change: self.ports_changed())

    def ports_changed(self) -> None:
        """Ports came, went or changed, or labels of VMs or namespaces did."""
        self._controller.enqueue_after(ALL, _GATHER_SECONDS)

    async def prepare(self) -> None:
        """Have the firewall in force before the first port is plugged: it then gets nothing through until its rules
        are there. Raises ``Refused`` where this machine has no firewall: a port plugged all the same would be open."""
        if not self._in_force:
            await self._load(await self._ruleset(self._source.bindings()))

    async def reconcile(self, key: Key) -> float | None:
        if key != ALL:
            self._controller.enqueue_after(ALL, _GATHER_SECONDS)
            return None
        ports = self._source.bindings()
        ruleset = await self._ruleset(ports)
        if self._in_force or any(port.interface is not None for port in ports):
            await self._load(ruleset)
        counted = await self._data_plane.counters() if self._in_force else {}
        await self._show(ruleset, counted)
        return _COUNT_SECONDS if self._in_force else None

    async def _load(self, ruleset: Ruleset) -> None:
        await self._data_plane.load(ruleset)
        self._in_force = True

    async def _ruleset(self, ports: Sequence[PortBinding]) -> Ruleset:
        policies = [self._resources.parse(stored) for stored in self._policies]
        namespaces = {stored.name: _labels(stored.json()) for stored in self._namespaces}
        self._compiled = await asyncio.to_thread(_compile, policies, self._compiled)
        return await asyncio.to_thread(assemble, [one.policy for one in self._compiled.values()], ports, namespaces)

    # -- what is shown ------------------------------------------------------------------------------------------
    async def _show(self, ruleset: Ruleset, counted: Mapping[RuleRef, Count], error: CarmelError | None = None) -> None:
        for key, one in list(self._compiled.items()):
            seen = Seen(
                one.policy,
                ruleset,
                self._selected(one.policy),
                {rule: count for rule, count in counted.items() if rule.policy == one.policy.ref},
                error or one.error,
            )
            await self._write(key, seen)

    async def _write(self, key: Key, seen: Seen) -> None:
        policy = await self._resources.find(key)
        if policy is None:
            return
        try:
            await self._resources.update_status(policy, lambda one: describe(one, seen, self._runtime.clock.now()))
        except NotFound:
            return

    def _selected(self, policy: CompiledPolicy) -> int:
        return sum(
            stored.namespace == policy.ref.namespace and policy.spec.vm_selector.matches(_labels(stored.json()))
            for stored in self._vms
        )

    async def _failed(self, key: Key, error: CarmelError, _count: int) -> None:
        if key == ALL:
            ruleset = await self._ruleset(self._source.bindings())
            await self._show(ruleset, {}, error)


def _labels(obj: JsonObject) -> Mapping[str, str]:
    return obj["metadata"].get("labels") or {}


def _compile(policies: Iterable[FirewallPolicy], known: Mapping[Key, _Compiled]) -> dict[Key, _Compiled]:
    return {key_of(policy): _compile_one(policy, known.get(key_of(policy))) for policy in policies}


def _compile_one(policy: FirewallPolicy, known: _Compiled | None) -> _Compiled:
    meta = policy.metadata
    if known is not None and (known.uid, known.generation) == (meta.uid, meta.generation):
        return known
    ref = PolicyRef(meta.namespace or "default", meta.name)
    try:
        return _Compiled(meta.uid, meta.generation, compile_policy(ref, policy.spec))
    except CarmelError as error:
        return _Compiled(meta.uid, meta.generation, refused_policy(ref, policy.spec), error)
