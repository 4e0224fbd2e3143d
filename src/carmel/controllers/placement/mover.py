"""Brings running VMs to where the ledger has them: their threads, their memory, and what is kept on the disk."""

from __future__ import annotations

import asyncio

from carmel.controllers.placement.applying import held_at, pinning_of
from carmel.controllers.placement.ledger import Ledger
from carmel.controllers.placement.recorded import Recorded, Records
from carmel.errors import CarmelError, Refused
from carmel.hypervisor.config import Pinning
from carmel.hypervisor.machine import Hypervisor, Machine, MachineState
from carmel.placement.model import Move

_LIVE = frozenset({MachineState.RUNNING, MachineState.PAUSED})


class Mover:
    """One VM is held anew by one caller at a time, whoever it is."""

    def __init__(self, ledger: Ledger, hypervisor: Hypervisor, records: Records) -> None:
        self._ledger = ledger
        self._hypervisor = hypervisor
        self._records = records
        self._locks: dict[str, asyncio.Lock] = {}
        # What a machine refused is not tried again in the same run: launch id and what was wanted.
        self._refused: dict[str, tuple[str, Pinning]] = {}
        self._immovable: dict[str, str] = {}
        self._unsure: set[str] = set()

    async def restore(self, machine: Machine) -> Recorded | None:
        """What is recorded of a machine that was found running. After a daemon that died in the middle of a move the
        machine itself says how far it came; ``settle`` then makes that sure."""
        uid = machine.launch.uid
        recorded = await self._records.recorded(uid)
        if recorded is None:
            return None
        if recorded.moving is not None:
            self._unsure.add(uid)
        return Recorded(recorded.settled(machine.pinning))

    def forget(self, uid: str) -> None:
        """The VM runs no more."""
        self._refused.pop(uid, None)
        self._immovable.pop(uid, None)
        self._unsure.discard(uid)
        lock = self._locks.get(uid)
        if lock is not None and not lock.locked():
            del self._locks[uid]

    # -- to where it belongs ------------------------------------------------------------------------------------
    def wanted(self, machine: Machine) -> Pinning | None:
        """How the VM is to be held, if it is not held so."""
        uid = machine.launch.uid
        placement, ground = self._ledger.placement(uid), self._ledger.ground
        if placement is None or machine.state not in _LIVE or self._ledger.is_moving(uid) or not ground.means.pins:
            return None
        wanted = held_at(placement) if machine.pinning is not None else pinning_of(placement, ground)
        if wanted is None or (wanted == machine.pinning and uid not in self._unsure):
            return None
        return None if self._refused.get(uid) == (machine.launch.launch_id, wanted) else wanted

    async def settle(self, machine: Machine) -> None:
        """Raises ``CarmelError`` when the machine refuses; it is then left alone until something else is wanted."""
        uid = machine.launch.uid
        async with self._lock(uid):
            wanted = self.wanted(machine)
            if wanted is None:
                return
            try:
                await machine.repin(wanted)
            except CarmelError:
                self._refused[uid] = (machine.launch.launch_id, wanted)
                raise
            self._refused.pop(uid, None)
            if uid in self._unsure and not await self._make_sure(machine):
                # The disk says that only the machine knows, and so it is: no reason to try without end.
                self._refused[uid] = (machine.launch.launch_id, wanted)

    # -- to another place ---------------------------------------------------------------------------------------
    def can_move(self, machine: Machine) -> bool:
        """Whether it runs, is held, and has not shown that it cannot be moved."""
        launch = machine.launch
        return (
            self._ledger.ground.means.moves_memory
            and machine.state in _LIVE
            and machine.pinning is not None
            and self._immovable.get(launch.uid) != launch.launch_id
        )

    async def move(self, move: Move) -> None:
        """To its new place, live; on the disk stands at any time what is, or that only the machine knows.

        Raises ``CarmelError``; the VM is then where it was.
        """
        uid = move.before.request.uid
        async with self._lock(uid):
            machine = self._hypervisor.machine(uid)
            if machine is None or not self.can_move(machine):
                raise Refused(f"{move.before.request.name} cannot be moved any more", code="NotMovable")
            was = self._ledger.decided(uid)
            at = self._ledger.begin_move(move)
            moved = False
            try:
                assert was is not None
                await self._records.record(uid, Recorded(was, moving=move.after))
                self._unsure.add(uid)
                await self._repin(machine, held_at(at))
                moved = True
            finally:
                self._ledger.end_move(uid, moved=moved)
            await self._make_sure(machine)

    async def _repin(self, machine: Machine, pinning: Pinning) -> None:
        try:
            await machine.repin(pinning)
        except CarmelError as error:
            if error.code == "CannotPin":
                self._immovable[machine.launch.uid] = machine.launch.launch_id
                self._ledger.set_movable(machine.launch.uid, movable=False)
            await self._make_sure(machine)
            raise

    async def _make_sure(self, machine: Machine) -> bool:
        """Let the disk say what the ledger does. A machine that ended meanwhile has nothing to say any more."""
        uid = machine.launch.uid
        placement = self._ledger.decided(uid)
        if placement is None or self._hypervisor.machine(uid) is not machine:
            return True
        try:
            await self._records.record(uid, Recorded(placement))
        except CarmelError:
            return False
        self._unsure.discard(uid)
        return True

    def _lock(self, uid: str) -> asyncio.Lock:
        return self._locks.setdefault(uid, asyncio.Lock())
