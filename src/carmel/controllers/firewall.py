"""The firewall: all policies and all ports make one ruleset, which is loaded whole whenever something changes."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from carmel.controllers.firewall_status import Seen, describe
from carmel.controllers.runtime import ControllerSpec, Key, Resources, Runtime, key_of
from carmel.errors import CarmelError, NotFound, Refused
from carmel.network.firewall import (
    CompiledPolicy,
    Count,
    FirewallDataPlane,
    LabelledVm,
    PolicyRef,
    PortBinding,
    PortSource,
    RuleRef,
    Ruleset,
    assemble,
    compile_policy,
    refused_policy,
)
from carmel.resources.core import NAMESPACE
from carmel.resources.firewallpolicy import FIREWALL_POLICY, FirewallPolicy
from carmel.store.protocol import Stored

_log = logging.getLogger(__name__)

ALL = Key(None, "firewall")
"""The one thing that passes are over: rules are loaded together, whatever changed."""

_COUNT_SECONDS = 30.0
_GATHER_SECONDS = 0.02
"""What changes within this much of a first change is loaded with it."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    uid: str
    resource_version: str
    generation: int | None
    policy: CompiledPolicy
    error: CarmelError | None = None


class FirewallController:
    """``source`` says which ports there are, and when they changed."""

    def __init__(self, runtime: Runtime, data_plane: FirewallDataPlane, source: PortSource) -> None:
        self._runtime = runtime
        self._data_plane = data_plane
        self._source = source
        self._compiled: dict[Key, _Compiled] = {}
        self._shown: dict[Key, Seen] = {}
        self._in_force = False
        self._resources: Resources[FirewallPolicy] = runtime.resources(
            FIREWALL_POLICY, FirewallPolicy, manager="firewall-controller"
        )
        self._policies = runtime.informer(FIREWALL_POLICY)
        self._namespaces = runtime.informer(NAMESPACE)
        self._controller = runtime.add(
            ControllerSpec("firewall", FIREWALL_POLICY, self.reconcile, workers=1, on_failure=self._failed)
        )
        self._namespaces.listen(lambda _change: self.ports_changed())
        source.on_change(self.ports_changed)

    def ports_changed(self) -> None:
        """Ports came, went or changed, or labels of VMs or namespaces did."""
        self._controller.enqueue_after(ALL, _GATHER_SECONDS)

    async def prepare(self) -> None:
        """Have the firewall in force before the first port is plugged: it then gets nothing through until its rules
        are there. Raises ``Refused`` where this machine has no firewall: a port plugged all the same would be open."""
        if not self._in_force:
            await self._load(await self._ruleset(self._source.bindings()))

    async def admit(self, namespace: str, labels: Mapping[str, str]) -> None:
        """Have the firewall in force, or be sure that a VM with these labels needs none: no policy selects it, so
        everything is allowed. Raises ``Refused`` otherwise: its ports would be open that are not to be."""
        try:
            await self.prepare()
        except Refused:
            selecting = (one.policy for key, one in self._compiled.items() if key.namespace == namespace)
            if any(policy.spec.vm_selector.matches(labels) for policy in selecting):
                raise

    async def reconcile(self, key: Key) -> float | None:
        if key != ALL:
            self._controller.enqueue_after(ALL, _GATHER_SECONDS)
            return None
        ports = self._source.bindings()
        ruleset = await self._ruleset(ports)
        if self._in_force or any(port.interface is not None for port in ports):
            try:
                await self._load(ruleset)
            except Refused:
                if self._compiled:
                    raise
                # Without a policy nothing is missing where there is no firewall.
                return None
        counted = await self._data_plane.counters() if self._in_force else {}
        await self._show(ruleset, counted)
        return _COUNT_SECONDS if self._in_force else None

    async def _load(self, ruleset: Ruleset) -> None:
        await self._data_plane.load(ruleset)
        self._in_force = True

    async def _ruleset(self, ports: Sequence[PortBinding]) -> Ruleset:
        """Off the event loop, as policies may have thousands of rules."""
        policies, namespaces = list(self._policies), list(self._namespaces)
        self._compiled, ruleset = await asyncio.to_thread(_make, policies, self._compiled, ports, namespaces)
        return ruleset

    # -- what is shown ------------------------------------------------------------------------------------------
    async def _show(self, ruleset: Ruleset, counted: Mapping[RuleRef, Count], error: CarmelError | None = None) -> None:
        seen = await asyncio.to_thread(_seen, self._compiled, ruleset, self._source.vms(), counted, error)
        for key, one in seen.items():
            # Not even read again if nothing new is to be said: it may be large.
            if self._shown.get(key) != one:
                await self._write(key, one)
        self._shown = seen

    async def _write(self, key: Key, seen: Seen) -> None:
        policy = await self._resources.find(key)
        if policy is None:
            return
        try:
            await self._resources.update_status(policy, lambda one: describe(one, seen, self._runtime.clock.now()))
        except NotFound:
            return

    async def _failed(self, key: Key, error: CarmelError, _count: int) -> None:
        if key == ALL:
            ruleset = await self._ruleset(self._source.bindings())
            await self._show(ruleset, {}, error)


def _make(
    policies: Iterable[Stored],
    known: Mapping[Key, _Compiled],
    ports: Sequence[PortBinding],
    namespaces: Iterable[Stored],
) -> tuple[dict[Key, _Compiled], Ruleset]:
    compiled = {key_of(stored): _compile(stored, known.get(key_of(stored))) for stored in policies}
    labels = {stored.name: _labels(stored) for stored in namespaces}
    return compiled, assemble([one.policy for one in compiled.values()], ports, labels)


def _compile(stored: Stored, known: _Compiled | None) -> _Compiled:
    """What is known, while only the status changed."""
    if known is not None and known.resource_version == stored.resource_version:
        return known
    generation = stored.json()["metadata"].get("generation")
    if known is not None and (known.uid, known.generation) == (stored.uid, generation):
        return replace(known, resource_version=stored.resource_version)
    spec = FirewallPolicy.model_validate_json(stored.raw).spec
    ref = PolicyRef(stored.namespace or "default", stored.name)
    error = None
    try:
        policy = compile_policy(ref, spec)
    except CarmelError as raised:
        policy, error = refused_policy(ref, spec), raised
    return _Compiled(stored.uid, stored.resource_version, generation, policy, error)


def _seen(
    compiled: Mapping[Key, _Compiled],
    ruleset: Ruleset,
    vms: Iterable[LabelledVm],
    counted: Mapping[RuleRef, Count],
    error: CarmelError | None,
) -> dict[Key, Seen]:
    of_namespace: dict[str | None, list[LabelledVm]] = {}
    for vm in vms:
        of_namespace.setdefault(vm.namespace, []).append(vm)
    counts: dict[PolicyRef, dict[RuleRef, Count]] = {}
    for rule, count in counted.items():
        counts.setdefault(rule.policy, {})[rule] = count
    ports, elsewhere = Counter[PolicyRef](), dict[PolicyRef, Counter[str]]()
    for rules in ruleset.ports.values():
        for ref in {*(rules.ingress or ()), *(rules.egress or ())}:
            if rules.port.interface is not None:
                ports[ref] += 1
            elif rules.port.smart_nic is not None:
                elsewhere.setdefault(ref, Counter())[rules.port.smart_nic] += 1
    return {
        key: Seen(
            one.policy,
            len(
                {
                    vm.name
                    for vm in of_namespace.get(key.namespace, ())
                    if one.policy.spec.vm_selector.matches(vm.labels)
                }
            ),
            ports[one.policy.ref],
            elsewhere.get(one.policy.ref, {}),
            one.policy.ref in ruleset.refused,
            counts.get(one.policy.ref, {}),
            error or one.error,
        )
        for key, one in compiled.items()
    }


def _labels(stored: Stored) -> Mapping[str, str]:
    return stored.json()["metadata"].get("labels") or {}
