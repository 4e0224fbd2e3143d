"""Events (core/v1): what happened to a resource, the same thing counted and not repeated.

An event's name is made of what it says, so that a daemon started anew goes on counting where the last one stopped.
Recording never holds up a pass: events are written by a task of their own, and bounded.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from carmel.cancellation import end_tasks
from carmel.controllers.runtime.clock import Clock
from carmel.controllers.runtime.keys import Key
from carmel.controllers.runtime.resources import Resources
from carmel.errors import AlreadyExists, CarmelError
from carmel.resources.base import ObjectMeta, Resource
from carmel.resources.core import EVENT, Event, EventSource, ObjectReference
from carmel.resources.kinds import Kind
from carmel.store.protocol import Store

_log = logging.getLogger(__name__)

MAX_PENDING = 1000
MAX_MESSAGE = 1024
"""Kubernetes' own bound on an event's message."""
EVENT_SECONDS = 3600
"""How long an event is kept after it was last seen: the default of kube-apiserver's ``--event-ttl``."""


class EventKind(StrEnum):
    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(slots=True)
class _Pending:
    event: Event
    count: int = 1


class EventRecorder:
    """``record`` says that something happened; the rest happens behind."""

    def __init__(self, store: Store, clock: Clock, host: str) -> None:
        self._events = Resources(store, EVENT, Event)
        self._clock = clock
        self._host = host
        self._pending: OrderedDict[Key, _Pending] = OrderedDict()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    def record(
        self, kind: Kind, obj: Resource, event: EventKind, reason: str, message: str, *, component: str = "carmeld"
    ) -> None:
        """``reason`` is one CamelCase word, ``message`` a sentence for people."""
        made = self._make(kind, obj, event, reason, message[:MAX_MESSAGE], component)
        key = Key(made.metadata.namespace, made.metadata.name)
        pending = self._pending.get(key)
        if pending is not None:
            pending.count += 1
            pending.event.last_timestamp = made.last_timestamp
        elif len(self._pending) < MAX_PENDING:
            self._pending[key] = _Pending(made)
        self._wake.set()

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="event recorder")

    async def stop(self) -> None:
        """Write what is pending, then end."""
        if self._task is None:
            return
        await end_tasks(self._task)
        self._task = None
        await self.flush()

    async def flush(self) -> None:
        """Write what is pending; it is stored when this returns."""
        async with self._writing:
            while self._pending:
                key, pending = self._pending.popitem(last=False)
                try:
                    await self._write(key, pending)
                except CarmelError as error:
                    # An event is worth less than what it tells of: it is not tried again.
                    _log.warning("an event was not stored: %s", error)

    async def prune(self) -> None:
        """Remove events that were last seen more than ``EVENT_SECONDS`` ago."""
        now = self._clock.now()
        for event in await self._events.list():
            seen = event.last_timestamp or event.metadata.creation_timestamp
            if seen is not None and (now - seen).total_seconds() > EVENT_SECONDS:
                await self._events.delete(event)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.flush()

    async def _write(self, key: Key, pending: _Pending) -> None:
        event = pending.event
        existing = await self._events.find(key)
        if existing is None:
            event.count = pending.count
            try:
                await self._events.create(event)
            except AlreadyExists:
                existing = await self._events.get(key)
            else:
                return
        seen, more = event.last_timestamp, pending.count
        before = existing.count or 1

        def count(one: Event) -> None:
            one.count = before + more
            one.last_timestamp = seen

        await self._events.update(existing, count)

    def _make(self, kind: Kind, obj: Resource, event: EventKind, reason: str, message: str, component: str) -> Event:
        now: datetime = self._clock.now().replace(microsecond=0)
        namespace = obj.metadata.namespace or "default"
        said = "\0".join((obj.metadata.uid or "", event, reason, message))
        digest = hashlib.sha256(said.encode()).hexdigest()[:16]
        return Event(
            metadata=ObjectMeta(name=f"{obj.metadata.name[:230]}.{digest}", namespace=namespace),
            involved_object=ObjectReference(
                api_version=kind.api_version,
                kind=kind.kind,
                name=obj.metadata.name,
                namespace=obj.metadata.namespace,
                uid=obj.metadata.uid,
                resource_version=obj.metadata.resource_version,
            ),
            reason=reason,
            message=message,
            type=event.value,
            source=EventSource(component=component, host=self._host),
            first_timestamp=now,
            last_timestamp=now,
            count=1,
            reporting_component=f"carmel.dev/{component}",
            reporting_instance=self._host,
        )
