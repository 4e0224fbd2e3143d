"""Who has which CPUs and memory of this host: of all VMs that run, or are about to.

Nothing here waits: between two awaits of anybody the ledger is as it was, so two VMs that are planned at the same time
never get the same CPU. It is rebuilt when the daemon starts, from what the running VMs were launched with.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from carmel.controllers.placement.ground import Ground
from carmel.controllers.placement.shapes import astray, leaving, leaving_uid, placed_nowhere, same_place
from carmel.errors import Conflict
from carmel.placement.model import Move, Placement, Refusal, Request
from carmel.placement.occupancy import Occupancy
from carmel.placement.placer import place
from carmel.resources.virtualmachine import CpuPolicy


@dataclass(slots=True)
class _Entry:
    """``placement`` is where the VM is, ``moving`` where it is being taken. ``known`` false: it runs, but nobody knows
    where. ``movable``: repair may move it now. ``ended``: it runs no more, and may start anew at once."""

    placement: Placement
    moving: Placement | None = None
    known: bool = True
    movable: bool = False
    ended: bool = False

    @property
    def target(self) -> Placement:
        return self.moving or self.placement


class Listener(Protocol):
    """Who wants to know of changes. It is told in the middle of them, so it only takes a note."""

    def look(self, uid: str) -> None:
        """This VM has to be looked at again: there may be the room that it waits for, or its CPUs are others now."""

    def changed(self) -> None:
        """A VM left its place or may be moved from it now, or the host changed."""

    def refused(self) -> None:
        """There was no room for a VM."""


class Ledger:
    """``listen`` to it before it is used."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._entries: dict[str, _Entry] = {}
        self._refused: dict[str, tuple[Request, Refusal]] = {}
        self._occupancy = Occupancy.of(ground.silicon, ())
        self._effective: dict[str, Placement] = {}
        self._listeners: list[Listener] = []
        self._generation = 0

    def listen(self, listener: Listener) -> None:
        self._listeners.append(listener)

    # -- what is so ---------------------------------------------------------------------------------------------
    @property
    def ground(self) -> Ground:
        return self._ground

    @property
    def occupancy(self) -> Occupancy:
        """A value: later changes make new ones."""
        return self._occupancy

    @property
    def generation(self) -> int:
        """Another number whenever a VM came or went, or the host changed; moves do not count."""
        return self._generation

    def placement(self, uid: str) -> Placement | None:
        """Where the VM may run now: shared ones keep off the CPUs that others have had dedicated since. ``None``: it
        has no place, or nobody knows which."""
        entry = self._entries.get(uid)
        return self._effective.get(uid) if entry is not None and entry.known else None

    def decided(self, uid: str) -> Placement | None:
        """The same as it was decided: what is kept on the disk."""
        entry = self._entries.get(uid)
        return entry.placement if entry is not None and entry.known else None

    def held(self, request: Request) -> Placement | None:
        """The place that is kept for exactly this request."""
        entry = self._entries.get(request.uid)
        if entry is None or not entry.known or entry.ended or entry.placement.request != request:
            return None
        return self._effective[request.uid]

    def refusal(self, request: Request) -> Refusal | None:
        """Why this request has no place, as long as there is no more room than there was then."""
        request_then, refusal = self._refused.get(request.uid, (None, None))
        return refusal if request_then == request else None

    def waiting(self) -> list[Request]:
        """What was refused for the time being, the longest waiting first."""
        return [request for request, refusal in self._refused.values() if not refusal.permanent]

    def is_moving(self, uid: str) -> bool:
        entry = self._entries.get(uid)
        return entry is not None and entry.moving is not None

    def dedicated_cpus(self) -> frozenset[int]:
        """Those that a VM has for itself."""
        return frozenset(
            cpu
            for entry in self._entries.values()
            if entry.known
            for placement in (entry.placement, entry.moving)
            if placement is not None and placement.request.policy is CpuPolicy.DEDICATED
            for cpus in placement.vcpus
            for cpu in cpus
        )

    def astray(self) -> list[str]:
        """Sentences about VMs that run on CPUs or nodes which the machine does not have any more."""
        return [
            f"{entry.placement.request.name} runs on CPUs or NUMA nodes that the machine does not have any more"
            for entry in self._entries.values()
            if entry.known and astray(entry.target, self._ground.hardware)
        ]

    # -- what changes it ----------------------------------------------------------------------------------------
    def set_ground(self, ground: Ground) -> None:
        """The machine, or how it is to be used, changed. Who runs keeps its place; who was refused is looked at."""
        self._ground = ground
        self._rebuild()
        self._generation += 1
        self._tell_room()

    def adopt(self, request: Request, placement: Placement | None) -> None:
        """A VM that runs. Without a placement it is counted as shared and as lying everywhere."""
        hardware = self._ground.hardware
        entry = _Entry(placement or placed_nowhere(request, hardware), known=placement is not None)
        self._take_out(request.uid)
        self._entries[request.uid] = entry
        self._rebuild()
        self._generation += 1

    def reserve(self, request: Request) -> Placement | Refusal:
        """A place for a VM that is about to start; it is the VM's until ``release``. One that it had is given up."""
        had = self._take_out(request.uid)
        outcome = self._place(request)
        if had:
            self._generation += 1
            self._tell_room()
        if isinstance(outcome, Refusal):
            self.refuse(request, outcome)
        return outcome

    def take_room(self, request: Request) -> None:
        """The same for a VM that waits, after room was made for it."""
        if self.refusal(request) is not None and not isinstance(self._place(request), Refusal):
            self._tell_look(request.uid)

    def _place(self, request: Request) -> Placement | Refusal:
        outcome = place(self._ground.silicon, self._occupancy, request)
        if isinstance(outcome, Refusal):
            return outcome
        self._refused.pop(request.uid, None)
        self._entries[request.uid] = entry = _Entry(outcome)
        self._put(request.uid, entry)
        self._generation += 1
        return self._effective[request.uid]

    def refuse(self, request: Request, refusal: Refusal) -> None:
        """Remember it until there is room."""
        self._refused[request.uid] = (request, refusal)
        if not refusal.permanent:
            for listener in self._listeners:
                listener.refused()

    def let_go(self, uid: str) -> None:
        """The VM runs no more. What it had stays taken until it is placed anew, or released."""
        entry = self._entries.get(uid)
        if entry is not None:
            entry.ended = True

    def release(self, uid: str) -> None:
        """The VM runs no more, or does not start after all. What it waited for is forgotten, too."""
        self._refused.pop(uid, None)
        if self._take_out(uid):
            self._generation += 1
            self._tell_room()

    def reconsider(self) -> None:
        """VMs were moved, and may have left room: who waits is looked at."""
        self._tell_room()

    def set_movable(self, uid: str, *, movable: bool) -> None:
        entry = self._entries.get(uid)
        if entry is not None and entry.known and entry.movable != movable:
            entry.movable = movable
            self._put(uid, entry)
            self._generation += 1
            if movable:
                self._tell_changed()

    # -- moves --------------------------------------------------------------------------------------------------
    def begin_move(self, move: Move) -> Placement:
        """From now on both places are the VM's, until ``end_move``. Answers where exactly it may run at the new one.

        Raises ``Conflict`` when it is not where the move begins any more.
        """
        uid = move.before.request.uid
        entry = self._entries.get(uid)
        if entry is None or entry.moving is not None or not entry.movable:
            raise Conflict(f"{move.before.request.name} cannot be moved any more", code="NotMovable")
        if not same_place(move.before, entry.placement) and not same_place(move.before, self._effective[uid]):
            raise Conflict(f"{move.before.request.name} is somewhere else by now", code="NotMovable")
        entry.moving = replace(move.after, request=entry.placement.request)
        self._put(uid, entry)
        return self._effective[uid]

    def end_move(self, uid: str, *, moved: bool) -> None:
        """It is at the new place, or still at the old one."""
        entry = self._entries.get(uid)
        if entry is None or entry.moving is None:
            return
        if moved:
            entry.placement = entry.moving
        entry.moving = None
        self._put(uid, entry)
        self._tell_look(uid)

    # -- within -------------------------------------------------------------------------------------------------
    def _counted(self, entry: _Entry) -> list[Placement]:
        """What occupancy is to know of one VM. While it moves, what it leaves is still taken."""
        target = entry.target
        counted = [replace(target, request=replace(target.request, movable=entry.movable))]
        if entry.moving is not None and (rest := leaving(entry.placement, entry.moving)) is not None:
            counted.append(rest)
        return counted

    def _put(self, uid: str, entry: _Entry) -> None:
        occupancy = self._occupancy.minus(uid).minus(leaving_uid(uid))
        for placement in self._counted(entry):
            occupancy = occupancy.plus(placement)
        self._become(occupancy, uid)

    def _take_out(self, uid: str) -> bool:
        entry = self._entries.pop(uid, None)
        if entry is None:
            return False
        self._become(self._occupancy.minus(uid).minus(leaving_uid(uid)), uid)
        return True

    def _rebuild(self) -> None:
        counted = (one for entry in self._entries.values() for one in self._counted(entry))
        self._become(Occupancy.of(self._ground.silicon, counted), None)

    def _become(self, occupancy: Occupancy, changed: str | None) -> None:
        """``changed`` is the VM that it is about, ``None``: all. The others' CPUs are other ones only where cores were
        dedicated or given back; who has other ones than before is looked at."""
        all_of_them = changed is None or occupancy.taken != self._occupancy.taken
        self._occupancy = occupancy
        before = self._effective
        if all_of_them:
            self._effective = {uid: self._now(uid, entry) for uid, entry in self._entries.items()}
        else:
            self._effective = {uid: one for uid, one in before.items() if uid != changed}
            if changed is not None and changed in self._entries:
                self._effective[changed] = self._now(changed, self._entries[changed])
        for uid, placement in self._effective.items():
            if uid != changed and uid in before and before[uid].vcpus != placement.vcpus:
                self._tell_look(uid)

    def _now(self, uid: str, entry: _Entry) -> Placement:
        return replace(self._occupancy.current(uid), request=entry.placement.request)

    def _tell_room(self) -> None:
        waited, self._refused = self._refused, {}
        for uid in waited:
            self._tell_look(uid)
        self._tell_changed()

    def _tell_changed(self) -> None:
        for listener in self._listeners:
            listener.changed()

    def _tell_look(self, uid: str) -> None:
        for listener in self._listeners:
            listener.look(uid)
