"""The Host: this machine, what runs its VMs, and how much of it they have.

Written only when something changed. There is no heartbeat on a single host: who can read the Host at all has asked
the very daemon whose life it would tell, and a Lease renewed every ten seconds would be eight thousand synchronous
writes a day to an SD card. In a cluster, where others read it, the Lease belongs to the Kubernetes store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from carmel import __version__
from carmel.controllers.host_facts import HostFacts
from carmel.controllers.placement import Surveyor
from carmel.controllers.runtime import (
    Controller,
    ControllerSpec,
    Key,
    Runtime,
    condition,
    error_message,
    set_conditions,
)
from carmel.controllers.runtime.informer import Change
from carmel.controllers.virtualmachine import HostLimits
from carmel.errors import AlreadyExists, CarmelError
from carmel.resources.base import Condition, JsonObject, ObjectMeta
from carmel.resources.host import HOST, Host, HostEndpoint, HostResources, HypervisorInfo
from carmel.resources.virtualmachine import VIRTUAL_MACHINE
from carmel.units import format_bytes, parse_bytes

LOOK_SECONDS = 300.0
"""How often the machine is looked at again: QEMU may have been installed, upgraded or removed."""
_ALLOCATED_SECONDS = 2.0
"""How long changes of VMs are gathered before the Host tells them: twenty starts are then one write."""
CALM_SECONDS = 5.0
"""CPUs and memory come and go in rows, one event each: the machine is read again when that is over, or nearly."""
_RUNNING = frozenset({"PoweredOn", "Paused"})


@dataclass(frozen=True, slots=True)
class HypervisorFacts:
    """What runs the VMs: as the Host shows it, and what one VM may have."""

    info: HypervisorInfo
    max_vcpus: int | None


class _Share(NamedTuple):
    cpus: int
    memory_bytes: int
    runs: bool


@dataclass(slots=True)
class HostController:
    """``ask_hypervisor`` raises ``CarmelError`` when there is none that works, which the Host then shows. What of the
    machine can be placed on is the ``surveyor``'s to know; here it is told to look."""

    runtime: Runtime
    facts: HostFacts
    ask_hypervisor: Callable[[], Awaitable[HypervisorFacts]]
    endpoints: Callable[[], list[HostEndpoint]]
    surveyor: Surveyor
    _known: HypervisorFacts | None = None
    _machine_changed: bool = False
    _shares: dict[Key, _Share] = field(default_factory=dict)
    _controller: Controller = field(init=False)

    def __post_init__(self) -> None:
        controller = self._controller = self.runtime.add(
            ControllerSpec(
                name="host-controller",
                kind=HOST,
                reconcile=self.reconcile,
                accepts=lambda host: bool(host["metadata"]["name"] == self.facts.name),
                workers=1,
            )
        )

        def changed(change: Change) -> None:
            share = _share(change.states[-1]) if change.new is not None else None
            before = self._shares.pop(change.key, None)
            if share is not None:
                self._shares[change.key] = share
            if share != before:
                controller.enqueue_after(Key(None, self.facts.name), _ALLOCATED_SECONDS)

        self.runtime.informer(VIRTUAL_MACHINE).listen(changed)
        self.surveyor.ledger.listen(self)

    def limits(self) -> HostLimits:
        """What one VM may have here, as far as it is known by now."""
        return HostLimits(self.max_vcpus(), self.surveyor.ledger.ground.hardware.memory_bytes)

    def max_vcpus(self) -> int | None:
        """``None`` while there is no hypervisor that works."""
        return self._known.max_vcpus if self._known is not None else None

    async def ensure(self) -> None:
        """Make this machine's Host if there is none. To be called when the daemon starts."""
        try:
            await self.runtime.resources(HOST, Host).create(Host(metadata=ObjectMeta(name=self.facts.name)))
        except AlreadyExists:
            return

    async def learn(self) -> None:
        """Look at hypervisor and machine once, so that both are known before the first VM is looked at."""
        host = await self.runtime.resources(HOST, Host).get(Key(None, self.facts.name))
        await self._look(host)

    def look_again(self) -> None:
        """Something that the Host tells has changed outside the store."""
        self._controller.enqueue(Key(None, self.facts.name))

    def machine_changed(self) -> None:
        """The kernel says that CPUs or memory came or went; it says so one by one."""
        self._machine_changed = True
        self._controller.enqueue_after(Key(None, self.facts.name), CALM_SECONDS)

    # -- what the ledger tells ----------------------------------------------------------------------------------
    def look(self, uid: str) -> None:
        """That is the VM's own business."""

    def changed(self) -> None:
        self._controller.enqueue_after(Key(None, self.facts.name), _ALLOCATED_SECONDS)

    def refused(self) -> None:
        """Nothing that the Host tells."""

    async def reconcile(self, key: Key) -> float | None:
        hosts = self.runtime.resources(HOST, Host, manager="host-controller")
        host = await hosts.find(key)
        if host is None:
            # Somebody deleted it; as long as the daemon runs, the machine is here.
            await self.ensure()
            return None
        if host.metadata.deletion_timestamp is not None:
            return None
        ready = await self._look(host)
        await hosts.update_status(host, lambda one: self._write(one, ready))
        return LOOK_SECONDS

    async def _look(self, host: Host) -> Condition:
        ready = await self._ask()
        again, self._machine_changed = self._machine_changed, False
        await self.surveyor.look(host.spec.placement, self.max_vcpus(), again=again)
        return ready

    async def _ask(self) -> Condition:
        try:
            self._known = await self.ask_hypervisor()
        except CarmelError as error:
            self._known = None
            return condition("Ready", "False", error.code, error_message(error))
        return condition("Ready", "True", "Ready", "VMs can be started here")

    def _write(self, host: Host, ready: Condition) -> None:
        status = host.status
        running = [share for share in self._shares.values() if share.runs]
        memory = sum(share.memory_bytes for share in running)
        status.observed_generation = host.metadata.generation
        status.carmel_version = __version__
        status.system = self.facts.system
        status.hypervisor = self._known.info if self._known is not None else None
        machine = self.surveyor.ledger.ground.hardware
        status.capacity = HostResources(cpus=len(machine.cpus), memory=format_bytes(machine.memory_bytes))
        status.allocated = HostResources(cpus=sum(share.cpus for share in running), memory=format_bytes(memory))
        status.virtual_machines = len(self._shares)
        status.hardware = self.surveyor.hardware
        status.placement = self.surveyor.placement()
        status.endpoints = self.endpoints() or None
        set_conditions(status, [ready, *self.surveyor.conditions()], self.runtime.clock.now())


def _share(vm: JsonObject) -> _Share:
    spec, status = vm.get("spec") or {}, vm.get("status") or {}
    return _Share(
        cpus=(spec.get("cpu") or {}).get("count", 1),
        memory_bytes=parse_bytes((spec.get("memory") or {}).get("size", "0")),
        runs=status.get("powerState") in _RUNNING,
    )
