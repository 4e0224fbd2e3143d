"""What guest agents say, asked beside the passes: a guest that does not answer must not hold up its VM's power."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from carmel.controllers.runtime import Clock
from carmel.controllers.runtime.clock import Timer
from carmel.controllers.virtualmachine.observed import GuestView
from carmel.errors import CarmelError
from carmel.hypervisor.machine import Machine

_log = logging.getLogger(__name__)

CONNECTED_SECONDS = 60.0
"""How often a guest that answers is asked again: its addresses may change."""
FIRST_SECONDS = 1.0
LONGEST_SECONDS = 300.0
"""A guest that does not answer is asked after 1, 2, 4, ... 300 s, and when its channel was opened: an agent may need
a moment then."""


@dataclass(slots=True)
class _Watched:
    launch_id: str
    machine: Machine
    view: GuestView = field(default_factory=GuestView)
    wait: float = FIRST_SECONDS
    timer: Timer | None = None
    task: asyncio.Task[None] | None = None


class Guests:
    """The last answers, a VM each. ``changed`` is called with a uid when an answer differs from the last one."""

    def __init__(self, clock: Clock, changed: Callable[[str], None]) -> None:
        self._clock = clock
        self._changed = changed
        self._watched: dict[str, _Watched] = {}

    def view(self, machine: Machine) -> GuestView:
        """What is known of the guest, and from now on watch it."""
        uid, launch_id = machine.launch.uid, machine.launch.launch_id
        watched = self._watched.get(uid)
        if watched is None or watched.launch_id != launch_id:
            self.forget(uid)
            watched = self._watched[uid] = _Watched(launch_id, machine)
            self._schedule(uid, watched, FIRST_SECONDS)
        return watched.view

    def look(self, uid: str) -> None:
        """Something about the VM changed: ask soon."""
        watched = self._watched.get(uid)
        if watched is not None and watched.task is None:
            watched.wait = FIRST_SECONDS
            self._schedule(uid, watched, 0.1)

    def forget(self, uid: str) -> None:
        watched = self._watched.pop(uid, None)
        if watched is None:
            return
        if watched.timer is not None:
            watched.timer.cancel()
        if watched.task is not None:
            watched.task.cancel()

    async def close(self) -> None:
        tasks = [one.task for one in self._watched.values() if one.task is not None]
        for uid in list(self._watched):
            self.forget(uid)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _schedule(self, uid: str, watched: _Watched, seconds: float) -> None:
        if watched.timer is not None:
            watched.timer.cancel()
        watched.timer = self._clock.call_later(seconds, lambda: self._begin(uid, watched))

    def _begin(self, uid: str, watched: _Watched) -> None:
        watched.timer = None
        watched.task = asyncio.create_task(self._ask(uid, watched), name=f"guest agent {uid}")

    async def _ask(self, uid: str, watched: _Watched) -> None:
        view = GuestView()
        try:
            guest = await watched.machine.guest()
            if guest is not None:
                found = await watched.machine.guest_addresses()
                view = GuestView(guest, tuple((mac, tuple(addresses)) for mac, addresses in sorted(found.items())))
        except CarmelError as error:
            _log.debug("the guest agent of %s: %s", uid, error)
        watched.task = None
        connected = view.guest is not None
        watched.wait = CONNECTED_SECONDS if connected else min(LONGEST_SECONDS, watched.wait * 2)
        self._schedule(uid, watched, watched.wait)
        if view != watched.view:
            watched.view = view
            self._changed(uid)
