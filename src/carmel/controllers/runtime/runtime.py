"""The controllers of one daemon: shared caches, one recorder of events, started and stopped together."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import TypeVar

from carmel.controllers.runtime.clock import Clock, SystemClock
from carmel.controllers.runtime.conditions import condition, error_message, set_conditions
from carmel.controllers.runtime.controller import Controller, ControllerSpec, OnFailure
from carmel.controllers.runtime.events import EventKind, EventRecorder
from carmel.controllers.runtime.informer import Informer
from carmel.controllers.runtime.keys import Key
from carmel.controllers.runtime.metrics import Sample
from carmel.controllers.runtime.resources import Resources
from carmel.errors import CarmelError
from carmel.resources.base import Resource, Status
from carmel.resources.kinds import Kind
from carmel.store.protocol import Store

T = TypeVar("T", bound=Resource)


class Runtime:
    """What controllers share. Build, ``add`` controllers, ``start``; ``stop`` at the end."""

    def __init__(
        self, store: Store, host: str, *, clock: Clock | None = None, rng: random.Random | None = None
    ) -> None:
        self.store = store
        self.host = host
        self.clock = clock or SystemClock()
        self.rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self.events = EventRecorder(store, self.clock, host)
        self._informers: dict[Kind, Informer] = {}
        self._controllers: list[Controller] = []

    def informer(self, kind: Kind) -> Informer:
        """The one cache of ``kind``."""
        if kind not in self._informers:
            self._informers[kind] = Informer(self.store, kind, self.clock, self.rng)
        return self._informers[kind]

    def resources(self, kind: Kind, model: type[T], *, manager: str = "carmeld") -> Resources[T]:
        return Resources(self.store, kind, model, manager=manager)

    def add(self, spec: ControllerSpec) -> Controller:
        controller = Controller(spec, self.informer, self.clock, self.rng)
        self._controllers.append(controller)
        return controller

    def show_failure(self, resources: Resources[T], type_: str = "Ready") -> OnFailure:
        """An ``on_failure`` that makes the condition ``type_`` False, with the error's code as its reason and its
        hint in the message, and records a Warning event."""

        async def show(key: Key, error: CarmelError, _count: int) -> None:
            obj = await resources.find(key)
            if obj is None:
                return

            def change(one: T) -> None:
                status = getattr(one, "status", None)
                if isinstance(status, Status):
                    shown = condition(
                        type_, "False", error.code, error_message(error), generation=one.metadata.generation
                    )
                    set_conditions(status, [shown], self.clock.now())

            await resources.update_status(obj, change)
            self.events.record(resources.kind, obj, EventKind.WARNING, error.code, error_message(error))

        return show

    async def start(self) -> None:
        """Fill the caches, then let the controllers work."""
        self.events.start()
        for informer in self._informers.values():
            informer.start()
        for informer in self._informers.values():
            await informer.synced()
        for controller in self._controllers:
            controller.start()

    async def stop(self, grace_seconds: float = 2.0) -> None:
        await asyncio.gather(*(controller.stop(grace_seconds) for controller in self._controllers))
        for informer in self._informers.values():
            await informer.stop()
        await self.events.stop()

    def metrics(self) -> Iterator[Sample]:
        for controller in self._controllers:
            yield from controller.metrics.samples()
