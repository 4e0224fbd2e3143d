"""The one SmartNIC object of a NIC's own store: itself. What it shows to its host, as soon as that changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

from carmel import __version__
from carmel.controllers.nic.facts import NicFacts
from carmel.controllers.runtime import ControllerSpec, Key, Resources, Runtime, condition, set_conditions
from carmel.errors import AlreadyExists
from carmel.network.host.kernel import Link
from carmel.resources.base import Condition, JsonObject, ObjectMeta
from carmel.resources.port import PORT
from carmel.resources.smartnic import (
    SMART_NIC,
    FunctionKind,
    FunctionOwner,
    FunctionState,
    FunctionStatus,
    RepresentorStatus,
    SmartNIC,
    SwitchKind,
)
from carmel.smartnic.models.model import Function, Shown, SmartNicModel

Look = Callable[[], Awaitable[Mapping[str, Link]]]
"""The kernel's links, as they are now."""

_GATHER_SECONDS = 0.05
"""Plugging a port makes a handful of notifications."""


@dataclass(frozen=True, slots=True)
class Switching:
    """What is switched with. ``offloads``: the e-switch of a NIC that can does what it is told. ``trouble``: why
    nothing is switched now, by one CamelCase word and in a sentence."""

    kind: SwitchKind
    offloads: bool = False
    trouble: tuple[str, str] | None = None


class SelfStatus:
    """``shown`` is what the NIC had when it was last looked at. Who wants to know of changes calls ``on_change``."""

    def __init__(self, runtime: Runtime, facts: NicFacts, model: SmartNicModel, look: Look) -> None:
        self.shown = Shown()
        self.switching = Switching(SwitchKind.LINUX_BRIDGE)
        self._runtime = runtime
        self._facts = facts
        self._model = model
        self._look = look
        self._key = Key(None, facts.name)
        self._told: list[Callable[[], None]] = []
        self._one_at_a_time = asyncio.Lock()
        self._resources: Resources[SmartNIC] = runtime.resources(SMART_NIC, SmartNIC, manager="smartnic-controller")
        self._ports = runtime.informer(PORT)
        self._controller = runtime.add(
            ControllerSpec(
                "smartnic",
                SMART_NIC,
                self.reconcile,
                accepts=lambda obj: bool(obj["metadata"]["name"] == facts.name),
                workers=1,
                on_failure=runtime.show_failure(self._resources),
            )
        )
        self._ports.listen(lambda _change: self.look_again())

    def on_change(self, told: Callable[[], None]) -> None:
        self._told.append(told)

    def look_again(self) -> None:
        """Links or ports changed."""
        self._controller.enqueue_after(self._key, _GATHER_SECONDS)

    async def ensure(self) -> None:
        """Make the object if there is none: its host is trusted as little as can be until an administrator says
        otherwise."""
        try:
            await self._resources.create(SmartNIC(metadata=ObjectMeta(name=self._facts.name)))
        except AlreadyExists:
            return

    async def refresh(self) -> Shown:
        """Look, and tell who wanted to know. Raises ``CarmelError``."""
        async with self._one_at_a_time:
            before, self.shown = self.shown, await self._model.look(await self._look())
        if self.shown != before:
            for told in self._told:
                told()
        return self.shown

    async def reconcile(self, key: Key) -> float | None:
        nic = await self._resources.find(key)
        if nic is None:
            await self.ensure()
            return None
        shown = await self.refresh()
        owners = self._owners()
        await self._resources.update_status(nic, lambda one: self._describe(one, shown, owners))
        return None

    def _owners(self) -> dict[str, FunctionOwner]:
        """By function the port that it is plugged into: really, not as a wish."""
        ports = (stored.json() for stored in self._ports)
        return {function: owner for port in ports for function, owner in _plugged(port)}

    def _describe(self, nic: SmartNIC, shown: Shown, owners: Mapping[str, FunctionOwner]) -> None:
        status, generation = nic.status, nic.metadata.generation
        status.observed_generation = generation
        status.serial = self._model.serial
        status.model = self._model.board
        status.mode = shown.mode
        status.trust = nic.spec.trust
        status.carmel_version = __version__
        status.kernel = self._facts.kernel
        status.boot_id = self._facts.boot_id
        status.switch = self.switching.kind
        status.hardware_offload = shown.hardware_offload and self.switching.offloads
        others = [one for one in status.functions or [] if one.kind is not FunctionKind.NET]
        taken = {one.function for one in shown.representors if one.interface != one.name}
        net = [_function(one, owners.get(one.id), plugged=one.id in taken) for one in shown.functions]
        status.functions = [*net, *others] or None
        status.representors = [
            RepresentorStatus(
                name=one.name, interface=one.interface, flavour=one.flavour.value, function=one.function, up=one.up
            )
            for one in shown.representors
        ] or None
        set_conditions(status, [self._ready(shown, generation), self._chosen(nic)], self._runtime.clock.now())

    def _ready(self, shown: Shown, generation: int | None) -> Condition:
        trouble = self.switching.trouble if shown.problem is None else ("NotSwitching", shown.problem)
        if trouble is None:
            return condition("Ready", "True", "Switching", generation=generation)
        return condition("Ready", "False", *trouble, generation=generation)

    def _chosen(self, nic: SmartNIC) -> Condition:
        now, generation = self.switching.kind, nic.metadata.generation
        if nic.spec.switch is now:
            return condition("SwitchInUse", "True", now.value, generation=generation)
        message = (
            f"{nic.spec.switch.value} is used from the next start of carmeld on this SmartNIC; until then {now.value}"
        )
        return condition("SwitchInUse", "False", "RestartNeeded", message, generation=generation)


def _plugged(port: JsonObject) -> Iterator[tuple[str, FunctionOwner]]:
    function = (port.get("status") or {}).get("function")
    if function:
        metadata = port["metadata"]
        yield function, FunctionOwner(kind="Port", namespace=metadata["namespace"], name=metadata["name"])


def _function(function: Function, owner: FunctionOwner | None, *, plugged: bool) -> FunctionStatus:
    """Free is what nobody has any more: a port that was just deleted may still have it."""
    return FunctionStatus(
        id=function.id,
        kind=FunctionKind.NET,
        pci_address=function.pci_address,
        mac=function.mac,
        representor=function.representor,
        state=FunctionState.PLUGGED if plugged or owner is not None else FunctionState.FREE,
        owner=owner,
    )
