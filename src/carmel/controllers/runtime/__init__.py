"""A small level-triggered runtime: caches fed by watches, a queue of keys, passes, back-off.

A controller is a function of a key, and a ``ControllerSpec`` around it::

    volumes = runtime.resources(VOLUME, Volume, manager="volume-controller")

    async def reconcile(key: Key) -> float | None:
        volume = await volumes.find(key)
        if volume is None:
            return None
        ...                                    # look at the world, do one step
        await volumes.update_status(volume, change)
        return None                            # or seconds until the next look

    runtime.add(ControllerSpec("volume", VOLUME, reconcile, on_failure=runtime.show_failure(volumes)))

It raises ``CarmelError``: one that is ``retryable`` comes again with back-off, any other is shown in a condition and
an event and comes again when something changes (or at the resync).
"""

from carmel.controllers.runtime.backoff import Backoff
from carmel.controllers.runtime.clock import Clock, SystemClock, sleep
from carmel.controllers.runtime.conditions import (
    Truth,
    condition,
    error_message,
    find_condition,
    is_true,
    remove_condition,
    set_conditions,
)
from carmel.controllers.runtime.controller import Controller, ControllerSpec, Watch
from carmel.controllers.runtime.events import EventKind, EventRecorder
from carmel.controllers.runtime.informer import Change, Informer
from carmel.controllers.runtime.keys import Key, key_of, owners_of_kind
from carmel.controllers.runtime.metrics import Sample
from carmel.controllers.runtime.resources import Resources
from carmel.controllers.runtime.runtime import Runtime

__all__ = [
    "Backoff",
    "Change",
    "Clock",
    "Controller",
    "ControllerSpec",
    "EventKind",
    "EventRecorder",
    "Informer",
    "Key",
    "Resources",
    "Runtime",
    "Sample",
    "SystemClock",
    "Truth",
    "Watch",
    "condition",
    "error_message",
    "find_condition",
    "is_true",
    "key_of",
    "owners_of_kind",
    "remove_condition",
    "set_conditions",
    "sleep",
]
