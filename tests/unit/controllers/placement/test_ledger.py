from __future__ import annotations

from dataclasses import replace

import pytest

from carmel.controllers.placement import Ledger, plain_hardware
from carmel.errors import Conflict
from carmel.placement.model import Budget, Move, Placement, Refusal, Request
from carmel.placement.repair import rebalance
from carmel.resources.virtualmachine import CpuPolicy
from carmel.units import GIB
from tests.unit.controllers.placement.machines import ground, request, two_nodes

DEDICATED = CpuPolicy.DEDICATED


class Told:
    """Takes notes of what the ledger tells."""

    def __init__(self, ledger: Ledger) -> None:
        self.looks: list[str] = []
        self.changes = self.refusals = 0
        ledger.listen(self)

    def look(self, uid: str) -> None:
        self.looks.append(uid)

    def changed(self) -> None:
        self.changes += 1

    def refused(self) -> None:
        self.refusals += 1


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(ground())


@pytest.fixture
def told(ledger: Ledger) -> Told:
    return Told(ledger)


def placed(ledger: Ledger, wanted: Request) -> Placement:
    outcome = ledger.reserve(wanted)
    assert isinstance(outcome, Placement), outcome
    return outcome


def refused(ledger: Ledger, wanted: Request) -> Refusal:
    outcome = ledger.reserve(wanted)
    assert isinstance(outcome, Refusal)
    return outcome


def cpus_of(placement: Placement) -> set[int]:
    return {cpu for cpus in placement.vcpus for cpu in cpus}


def running(ledger: Ledger, wanted: Request) -> Placement:
    placement = placed(ledger, wanted)
    ledger.set_movable(wanted.uid, movable=wanted.movable)
    return placement


def test_nobody_has_a_cpu_twice(ledger: Ledger) -> None:
    taken = [cpus_of(placed(ledger, request(f"d{number}", policy=DEDICATED))) for number in range(4)]
    assert sorted(cpu for cpus in taken for cpu in cpus) == list(range(8))
    assert ledger.dedicated_cpus() == set(range(8))
    assert not refused(ledger, request("d5", policy=DEDICATED)).permanent


def test_a_place_is_kept_for_the_same_request_only(ledger: Ledger) -> None:
    wanted = request("a")
    placement = placed(ledger, wanted)
    assert ledger.held(wanted) == placement == ledger.placement("a")
    assert ledger.held(replace(wanted, vcpus=3)) is None


def test_who_waits_is_told_of_room(ledger: Ledger, told: Told) -> None:
    for number in range(2):
        placed(ledger, request(f"big{number}", memory_bytes=8 * GIB))
    waiting = request("small")
    refusal = refused(ledger, waiting)
    assert refusal.code == "InsufficientMemory"
    assert ledger.refusal(waiting) == refusal
    assert (ledger.waiting(), told.refusals, told.looks) == ([waiting], 1, [])
    ledger.release("big0")
    assert told.looks == ["small"]
    assert told.changes == 1
    assert ledger.refusal(waiting) is None
    placed(ledger, waiting)


def test_shared_vms_leave_cpus_that_become_dedicated_and_get_them_back(ledger: Ledger, told: Told) -> None:
    shared = request("s", vcpus=4)
    before = placed(ledger, shared)
    (node,) = before.memory_nodes
    dedicated = placed(ledger, request("d0", policy=DEDICATED, near=frozenset({node})))
    assert dedicated.memory_nodes == (node,)
    now = ledger.placement("s")
    assert now is not None
    assert cpus_of(now) == cpus_of(before) - cpus_of(dedicated)
    assert told.looks == ["s"]
    assert ledger.decided("s") == before
    ledger.release("d0")
    assert ledger.placement("s") == before
    assert told.looks == ["s", "s"]


def test_a_vm_that_starts_anew_does_not_lose_its_room(ledger: Ledger, told: Told) -> None:
    for number in range(2):
        placed(ledger, request(f"big{number}", memory_bytes=8 * GIB))
    ledger.let_go("big0")
    # It has to ask again, and might get a better place; meanwhile nobody else gets this one.
    assert ledger.held(request("big0", memory_bytes=8 * GIB)) is None
    refused(ledger, request("other", memory_bytes=8 * GIB))
    told.looks.clear()
    assert told.changes == 0
    placed(ledger, request("big0", memory_bytes=7 * GIB))
    # It asked for less, and who waits is told of what is left.
    assert told.looks == ["other"]


def test_who_asks_for_more_than_there_is_gives_up_what_it_had(ledger: Ledger, told: Told) -> None:
    placed(ledger, request("w", memory_bytes=8 * GIB))
    placed(ledger, request("v", memory_bytes=4 * GIB))
    waiting = request("other", memory_bytes=5 * GIB)
    refused(ledger, waiting)
    ledger.let_go("w")
    more = request("w", memory_bytes=13 * GIB)
    refused(ledger, more)
    assert told.looks == ["other"]
    assert ledger.refusal(more) is not None
    placed(ledger, waiting)


def test_a_vm_that_nobody_placed_lies_everywhere(ledger: Ledger) -> None:
    ledger.adopt(request("old", vcpus=3, memory_bytes=6 * GIB), None)
    assert ledger.placement("old") is None
    assert ledger.occupancy.memory_room(0, None) == 5 * GIB
    assert ledger.occupancy.memory_room(1, None) == 5 * GIB
    ledger.release("old")
    assert ledger.occupancy.memory_room(0, None) == 8 * GIB


def test_rules_that_change_hurt_nobody_who_runs(ledger: Ledger, told: Told) -> None:
    dedicated = placed(ledger, request("d", policy=DEDICATED))
    shared = placed(ledger, request("s"))
    kept = ",".join(str(cpu) for cpu in sorted(cpus_of(dedicated)))
    ledger.set_ground(ground(reservedCpus=kept))
    assert ledger.placement("d") == dedicated
    assert ledger.placement("s") == shared
    assert told.changes == 1
    # For the next one it counts.
    assert cpus_of(placed(ledger, request("d2", policy=DEDICATED))).isdisjoint(cpus_of(dedicated))


def test_hardware_that_goes_from_under_a_vm_is_told(ledger: Ledger) -> None:
    placements = [placed(ledger, request(f"d{number}", policy=DEDICATED)) for number in range(4)]
    assert ledger.astray() == []
    ledger.set_ground(ground(plain_hardware("aarch64", 4096, 4, 8 * GIB)))
    lost = [one.request.name for one in placements if one.memory_nodes == (1,)]
    assert [said.split()[0] for said in ledger.astray()] == lost
    # Their records stay, the rest of the machine is used, and they leave as others do.
    refused(ledger, request("new", policy=DEDICATED))
    for number in range(4):
        ledger.release(f"d{number}")
    placed(ledger, request("new", policy=DEDICATED))
    assert ledger.astray() == []


class TestMoves:
    """``m`` shares a node with another, and has one for itself when a third has left the other node."""

    @pytest.fixture
    def moving(self, ledger: Ledger) -> Ledger:
        running(ledger, request("stays", 4, movable=False))
        running(ledger, request("leaves", 4, 8 * GIB))
        running(ledger, request("m", 4, 2 * GIB))
        ledger.release("leaves")
        return ledger

    def move(self, ledger: Ledger) -> Move:
        (move,) = rebalance(ledger.ground.silicon, ledger.occupancy, Budget(64 * GIB, 8))
        assert move.before.request.uid == "m"
        return move

    def room(self, ledger: Ledger) -> list[int]:
        return [ledger.occupancy.memory_room(node, None) // GIB for node in (0, 1)]

    def test_both_places_are_taken_while_it_moves(self, moving: Ledger) -> None:
        move = self.move(moving)
        assert (move.before.memory_nodes, move.after.memory_nodes) == ((0,), (1,))
        generation = moving.generation
        assert moving.begin_move(move).memory_nodes == (1,)
        assert moving.is_moving("m")
        assert self.room(moving) == [5, 6]
        decided = moving.decided("m")
        assert decided is not None
        assert decided.memory_nodes == (0,)
        moving.end_move("m", moved=True)
        assert self.room(moving) == [7, 6]
        assert moving.decided("m") != decided
        assert moving.generation == generation

    def test_a_move_that_failed_leaves_all_as_it_was(self, moving: Ledger) -> None:
        before, placement = moving.occupancy, moving.placement("m")
        moving.begin_move(self.move(moving))
        moving.end_move("m", moved=False)
        assert (moving.occupancy.memory, moving.occupancy.load) == (before.memory, before.load)
        assert moving.placement("m") == placement

    def test_who_left_is_not_moved(self, moving: Ledger) -> None:
        move = self.move(moving)
        moving.begin_move(move)
        moving.release("m")
        moving.end_move("m", moved=True)
        assert self.room(moving) == [7, 8]
        with pytest.raises(Conflict):
            moving.begin_move(move)

    def test_who_is_somewhere_else_by_now_is_not_moved(self, moving: Ledger) -> None:
        move = self.move(moving)
        assert running(moving, request("m", 4, 2 * GIB)).memory_nodes == (1,)
        with pytest.raises(Conflict):
            moving.begin_move(move)

    def test_who_may_not_be_moved_is_not(self, moving: Ledger) -> None:
        move = self.move(moving)
        moving.set_movable("m", movable=False)
        with pytest.raises(Conflict):
            moving.begin_move(move)

    def test_dedicated_cpus_are_kept_at_both_places(self) -> None:
        ledger = Ledger(ground(two_nodes(cpus=12)))
        near = frozenset({0})
        running(ledger, request("leaves", 12, policy=DEDICATED, near=near, movable=False))
        running(ledger, request("m", 10, policy=DEDICATED, near=near))
        ledger.release("leaves")
        move = self.move(ledger)
        ledger.begin_move(move)
        both = cpus_of(move.before) | cpus_of(move.after)
        assert ledger.dedicated_cpus() == both
        for number in range(2):
            assert cpus_of(placed(ledger, request(f"o{number}", policy=DEDICATED))).isdisjoint(both)
        refused(ledger, request("o3", policy=DEDICATED))
        ledger.end_move("m", moved=True)
        placed(ledger, request("o3", policy=DEDICATED))
