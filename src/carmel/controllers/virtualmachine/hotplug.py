"""Plugs devices into running VMs and unplugs them; what they were plugged in as is kept, as ``livedevices`` says."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from carmel.controllers.virtualmachine.launched import LaunchedSpecs
from carmel.controllers.virtualmachine.observed import Launched, Observed
from carmel.errors import CarmelError
from carmel.hypervisor.devices import DeviceKind
from carmel.hypervisor.machine import Machine


@dataclass(frozen=True, slots=True)
class Offer:
    """A device that is ready to be plugged. ``noted``: what the VM was started from, with it."""

    noted: Callable[[Launched], Launched]
    plug: Callable[[], Awaitable[None]]


class Pluggable(Protocol):
    """What devices of one kind differ in."""

    def offer(self, machine: Machine, observed: Observed, name: str) -> AbstractAsyncContextManager[Offer | None]:
        """What it needs is there while the context lasts. ``None``: what it is to be made from is not there."""
        ...

    async def unplug(self, machine: Machine, name: str) -> None:
        """Raises ``CarmelError``; then it is still there."""
        ...

    def without(self, launched: Launched, name: str) -> Launched:
        """What the VM was started from, without the device."""
        ...

    async def release(self, machine: Machine) -> None:
        """Take back what was given to devices that the machine does not have."""
        ...


@dataclass(frozen=True, slots=True)
class HotPlug:
    """Plugs and unplugs. Each may be repeated."""

    launched: LaunchedSpecs
    kinds: Mapping[DeviceKind, Pluggable]

    async def plug(self, machine: Machine, observed: Observed, kind: DeviceKind, name: str) -> None:
        """Raises ``CarmelError``; then it is not plugged, and what it was given is taken back."""
        try:
            async with self.kinds[kind].offer(machine, observed, name) as offer:
                if offer is not None:
                    await self.launched.change(machine.launch.uid, offer.noted)
                    await offer.plug()
        except BaseException:
            with contextlib.suppress(CarmelError):
                await self._gone(machine, kind, name)
            raise

    async def unplug(self, machine: Machine, kind: DeviceKind, name: str) -> None:
        """Raises ``CarmelError``; then it is still there."""
        await self.kinds[kind].unplug(machine, name)
        await self._gone(machine, kind, name)

    async def _gone(self, machine: Machine, kind: DeviceKind, name: str) -> None:
        devices = self.kinds[kind]
        await self.launched.change(machine.launch.uid, lambda launched: devices.without(launched, name))
        await devices.release(machine)
