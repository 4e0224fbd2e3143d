"""Repair: when VMs leave, or one finds no room, those that may be moved are moved to where all is better.

A controller of the Host: what it would do stands in ``status.rebalance.proposed``, what it did in ``done``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from carmel.controllers.placement.ledger import Ledger
from carmel.controllers.placement.mover import Mover
from carmel.controllers.placement.words import move_sentence, proposed_move
from carmel.controllers.runtime import Controller, ControllerSpec, EventKind, Key, Runtime, error_message
from carmel.errors import CarmelError, NotFound
from carmel.placement.model import Budget, Move, Refusal, Request
from carmel.placement.repair import make_room, rebalance
from carmel.resources.host import HOST, DoneMove, Host, RebalanceMode, RebalanceSpec, RebalanceStatus
from carmel.resources.virtualmachine import VIRTUAL_MACHINE, VirtualMachine
from carmel.units import parse_bytes

_log = logging.getLogger(__name__)

NAME = "rebalance-controller"
CALM_SECONDS = 5.0
"""VMs that leave, leave in company: it is looked at once when they are gone."""
INTERVAL_SECONDS = 600.0
MOST_DONE = 16
"""How many moves ``status.rebalance.done`` remembers."""
SEARCH_SHARE = 0.1
"""Of one CPU's time, at most, goes into searching room in vain: on a large and full host a search takes seconds."""
MOST_PROPOSED = 64
"""How many ``status.rebalance.proposed`` names: a Host must stay small."""


@dataclass(slots=True)
class _Work:
    """What one pass did, and what of its budget is left."""

    left: Budget
    done: list[DoneMove] = field(default_factory=list)


class Rebalancer:
    """Add it before the runtime starts."""

    def __init__(self, runtime: Runtime, ledger: Ledger, mover: Mover) -> None:
        self._ledger = ledger
        self._mover = mover
        self._clock = runtime.clock
        self._events = runtime.events
        self._hosts = runtime.resources(HOST, Host, manager=NAME)
        self._vms = runtime.resources(VIRTUAL_MACHINE, VirtualMachine, manager=NAME)
        # After which state of things, and by which rules, repair last found no more to do.
        self._seen: tuple[int, RebalanceSpec] | None = None
        self._again_at = 0.0
        self._no_room: dict[Request, int] = {}
        self._search_at = 0.0
        self._key = Key(None, runtime.host)
        self._controller: Controller = runtime.add(
            ControllerSpec(
                name=NAME,
                kind=HOST,
                reconcile=self.reconcile,
                accepts=lambda host: bool(host["metadata"]["name"] == runtime.host),
                workers=1,
            )
        )
        ledger.listen(self)

    # -- what the ledger tells ----------------------------------------------------------------------------------
    def look(self, uid: str) -> None:
        """That is the VM's own business."""

    def changed(self) -> None:
        self._controller.enqueue_after(self._key, CALM_SECONDS)

    def refused(self) -> None:
        self._controller.enqueue(self._key)

    async def reconcile(self, key: Key) -> float | None:
        """One pass: room for those that wait, then what makes the rest better."""
        host = await self._hosts.find(key)
        if host is None or host.metadata.deletion_timestamp is not None:
            return None
        spec, asked = host.spec.placement.rebalance, _asked(host)
        budget = Budget(parse_bytes(spec.memory_per_pass), spec.moves_per_pass)
        automatic = spec.mode is RebalanceMode.AUTOMATIC
        work = _Work(budget)
        if automatic:
            await self._make_room(work)
        if work.done or asked is not None or self._is_news(spec):
            self._seen = (self._ledger.generation, spec)
            if automatic or asked is not None:
                await self._repair(work)
            self._again_at = self._clock.monotonic() + INTERVAL_SECONDS
            await self._show(host, await self._better(budget), work.done, asked)
        if work.done:
            self._ledger.reconsider()
        if automatic and self._unsearched():
            return max(CALM_SECONDS, self._search_at - self._clock.monotonic())
        return INTERVAL_SECONDS

    def _is_news(self, spec: RebalanceSpec) -> bool:
        """Something changed since the last pass; or that is so long ago that what failed then may be tried again."""
        return self._seen != (self._ledger.generation, spec) or self._clock.monotonic() >= self._again_at

    # -- room for one that has none -----------------------------------------------------------------------------
    async def _make_room(self, work: _Work) -> None:
        waiting = set(self._ledger.waiting())
        self._no_room = {request: when for request, when in self._no_room.items() if request in waiting}
        for request in self._unsearched():
            if self._clock.monotonic() < self._search_at:
                break
            await self._room_for(request, work)

    def _unsearched(self) -> list[Request]:
        """Those that wait and for which, as things are now, nothing was tried."""
        return [one for one in self._ledger.waiting() if self._no_room.get(one) != self._ledger.generation]

    async def _room_for(self, request: Request, work: _Work) -> None:
        """Moves after which it has its place, kept for it at once. Nothing is moved for a VM that gets none by it."""
        before, began = self._ledger.generation, self._clock.monotonic()
        silicon, occupancy = self._ledger.ground.silicon, self._ledger.occupancy
        outcome = await asyncio.to_thread(make_room, silicon, occupancy, request, work.left)
        if not work.done:
            # With the whole budget: what was not found now is not found as long as things are as they are.
            self._no_room[request] = before
        if isinstance(outcome, Refusal):
            ended = self._clock.monotonic()
            self._search_at = ended + (ended - began) / SEARCH_SHARE
            return
        for move in outcome[0]:
            if self._ledger.generation != before or not await self._move(move, work):
                break
        self._ledger.take_room(request)

    # -- what makes the rest better -----------------------------------------------------------------------------
    async def _better(self, budget: Budget) -> Sequence[Move]:
        return await asyncio.to_thread(rebalance, self._ledger.ground.silicon, self._ledger.occupancy, budget)

    async def _repair(self, work: _Work) -> None:
        """One move after the other. Whenever somebody came or went in between, all is thought over again, with what is
        left of the budget; the first that fails ends it for this time."""
        while work.left.moves > 0:
            before = self._ledger.generation
            moves = await self._better(work.left)
            for move in moves:
                if self._ledger.generation != before:
                    break
                if not await self._move(move, work):
                    return
            else:
                return

    async def _move(self, move: Move, work: _Work) -> bool:
        """Whether it was made."""
        error: CarmelError | None = None
        try:
            await self._mover.move(move)
        except CarmelError as raised:
            error = raised
        await self._tell(move, error)
        said = error_message(error) if error is not None else None
        at = self._clock.now().replace(microsecond=0)
        work.done.append(DoneMove(**proposed_move(move).model_dump(), at=at, error=said))
        work.left = Budget(max(0, work.left.memory_bytes - move.bytes), work.left.moves - 1)
        return error is None

    # -- what is told -------------------------------------------------------------------------------------------
    async def _tell(self, move: Move, error: CarmelError | None) -> None:
        one = proposed_move(move)
        vm = await self._vms.find(Key(one.namespace, one.name))
        if vm is None:
            return
        kind, reason = (EventKind.NORMAL, "Moved") if error is None else (EventKind.WARNING, "MoveFailed")
        said = move_sentence(move) if error is None else f"{move_sentence(move)} {error_message(error)}"
        self._events.record(VIRTUAL_MACHINE, vm, kind, reason, said, component=NAME)
        _log.info("%s: %s: %s", move.before.request.name, reason, said)

    async def _show(self, host: Host, moves: Sequence[Move], done: Sequence[DoneMove], asked: datetime | None) -> None:
        proposed = [proposed_move(move) for move in moves[:MOST_PROPOSED]]

        def write(one: Host) -> None:
            before = one.status.rebalance or RebalanceStatus()
            one.status.rebalance = after = RebalanceStatus(
                proposed=proposed or None,
                done=[*reversed(done), *(before.done or [])][:MOST_DONE] or None,
                answered_at=asked or before.answered_at,
            )
            if after == RebalanceStatus():
                one.status.rebalance = None

        with contextlib.suppress(NotFound):
            await self._hosts.update_status(host, write)


def _asked(host: Host) -> datetime | None:
    """The time of a wish for repair that is not answered yet."""
    wish = host.spec.placement.rebalance.requested_at
    answered = host.status.rebalance.answered_at if host.status.rebalance is not None else None
    return wish if wish is not None and (answered is None or wish > answered) else None
