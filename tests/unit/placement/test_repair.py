"""Moves: only such as are possible when their turn comes, within the budget, for the better; and none missed that would
have made room."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from carmel.placement.cost import badness, waiting
from carmel.placement.model import Budget, Move, Placement, Refusal, Request, Rules
from carmel.placement.moving import same_shape
from carmel.placement.occupancy import Occupancy, cell_of
from carmel.placement.placer import place
from carmel.placement.repair import make_room, rebalance
from carmel.placement.silicon import survey
from carmel.units import GIB, MIB
from tests.unit.placement.machines import DEDICATED, NodeShape, filled, machine, placed, refused, request, wishes
from tests.unit.placement.movers import Host, State, Vm, fits, reachable

PLENTY = Budget(memory_bytes=1024 * GIB, moves=64)


def two_nodes(rules: Rules | None = None) -> Occupancy:
    return Occupancy.of(survey(machine(NodeShape(), NodeShape()), rules or Rules()))


def on_node(occupancy: Occupancy, node: int, wanted: Request) -> Occupancy:
    """With this VM on that node, whatever would have been better."""
    there = placed(occupancy, replace(wanted, near=frozenset({node})))
    assert there.memory_nodes == (node,)
    return occupancy.plus(replace(there, request=wanted))


def carried_out(occupancy: Occupancy, moves: tuple[Move, ...], budget: Budget) -> Occupancy:
    """After these moves, each of which was possible and told the truth."""
    assert len(moves) <= budget.moves
    assert sum(move.bytes for move in moves) <= budget.memory_bytes
    for move in moves:
        uid = move.before.request.uid
        assert move.before.request.movable
        assert move.before == occupancy.current(uid)
        assert move.after.request == move.before.request
        assert move.reason
        assert same_shape(move.after) == same_shape(move.before), "the guest would notice"
        pairs = zip(move.before.nodes, move.after.nodes, strict=True)
        assert move.bytes == sum(old.memory_bytes for old, new in pairs if old.host_node != new.host_node)
        assert isinstance(place(occupancy.silicon, occupancy.minus(uid), same_shape(move.after)), Placement)
        occupancy = occupancy.plus(move.after)
        _within_limits(occupancy)
    return occupancy


def _within_limits(occupancy: Occupancy) -> None:
    silicon = occupancy.silicon
    for (node, page), used in occupancy.memory.items():
        assert used <= silicon.nodes[node].capacity[page]
    for cell in silicon.cells:
        assert occupancy.load[cell.index] <= silicon.vcpus_for(occupancy.pool(cell).bit_count())


def test_after_others_have_left_a_crowd_is_evened_out() -> None:
    occupancy = two_nodes()
    for name in ("one", "two", "three"):
        occupancy = on_node(occupancy, 0, request(name, 4))
    (move,) = rebalance(occupancy.silicon, occupancy, PLENTY)
    assert move.after.memory_nodes == (1,)
    assert move.bytes == GIB
    assert move.reason == "Node 0 has 12 vCPUs for 4 CPUs; node 1 has 4 vCPUs for 4 CPUs once it is there."
    assert move.after.reasons == (move.reason,)
    after = carried_out(occupancy, (move,), PLENTY)
    assert rebalance(after.silicon, after, PLENTY) == ()


def test_vms_that_do_not_wait_are_left_in_peace() -> None:
    occupancy = on_node(on_node(two_nodes(), 0, request("one", 2)), 0, request("two", 2))
    assert rebalance(occupancy.silicon, occupancy, PLENTY) == ()


def test_a_vm_that_had_to_be_spread_comes_together() -> None:
    occupancy = filled(two_nodes(), *(request(f"half{n}", 1, 5 * GIB) for n in range(2)), request("wide", 4, 6 * GIB))
    assert occupancy.placements["wide"].memory_nodes == (0, 1)
    occupancy = occupancy.minus("half1")
    (move,) = rebalance(occupancy.silicon, occupancy, PLENTY)
    assert move.before.memory_nodes == (0, 1)
    assert move.after.memory_nodes == (1,)
    assert len(move.after.nodes) == 2, "its guest keeps its two nodes"
    assert move.bytes == 3 * GIB
    assert move.reason == "It is spread over nodes 0-1; node 1 has room for all of it."


def test_a_vm_in_the_way_is_moved_first() -> None:
    occupancy = filled(two_nodes(), *(request(f"half{n}", 1, 5 * GIB) for n in range(2)), request("wide", 4, 6 * GIB))
    occupancy = on_node(occupancy.minus("half0").minus("half1"), 0, request("left", 1, 2560 * MIB))
    occupancy = on_node(occupancy, 1, request("right", 1, 2560 * MIB))
    moves = rebalance(occupancy.silicon, occupancy, PLENTY)
    assert [move.before.request.name for move in moves] == ["default/left", "default/wide"]
    assert moves[0].reason == "It makes room on node 0 for default/wide."
    carried_out(occupancy, moves, PLENTY)
    assert rebalance(occupancy.silicon, occupancy, Budget(1024 * GIB, 1)) == (), "one move alone makes nothing better"


def test_nearer_to_its_devices_when_there_is_room() -> None:
    full = on_node(two_nodes(), 1, request("full", 1, 8 * GIB))
    occupancy = full.plus(placed(full, request("vm", 16, near=frozenset({1})))).minus("full")
    assert occupancy.placements["vm"].memory_nodes == (0,)
    (move,) = rebalance(occupancy.silicon, occupancy, PLENTY)
    assert move.after.memory_nodes == (1,)
    assert move.reason == "Its devices are nearer to node 1."


def test_who_may_not_be_moved_stays() -> None:
    occupancy = two_nodes()
    for name in ("one", "two", "three"):
        occupancy = on_node(occupancy, 0, request(name, 4, movable=False))
    assert rebalance(occupancy.silicon, occupancy, PLENTY) == ()


def test_a_dedicated_vm_moves_only_where_it_may() -> None:
    for movable in (True, False):
        wanted = request("wide", 4, 4 * GIB, policy=DEDICATED, movable=movable)
        occupancy = filled(
            two_nodes(), *(request(name, 2, policy=DEDICATED, near=near) for name, near in _CORNERS), wanted
        )
        assert occupancy.placements["wide"].memory_nodes == (0, 1)
        moves = rebalance(occupancy.silicon, occupancy.minus("left"), PLENTY)
        assert [move.after.vcpus for move in moves] == ([((0,), (1,), (2,), (3,))] if movable else [])


_CORNERS = (("left", frozenset({0})), ("right", frozenset({1})))


def test_the_budget_is_kept() -> None:
    occupancy = two_nodes()
    for index in range(6):
        occupancy = on_node(occupancy, 0, request(f"vm{index}", 4, GIB))
    for budget in (Budget(GIB, 8), Budget(64 * GIB, 1), Budget(0, 8), Budget(64 * GIB, 0), Budget(GIB - 1, 8)):
        moves = rebalance(occupancy.silicon, occupancy, budget)
        assert len(moves) == min(budget.moves, budget.memory_bytes // GIB, 3)
        carried_out(occupancy, moves, budget)


def test_room_is_made_for_a_guest_that_must_keep_its_shape() -> None:
    occupancy = on_node(on_node(two_nodes(), 0, request("left", 1, 4 * GIB)), 1, request("right", 1, 3 * GIB))
    saved = request("saved", 2, 6 * GIB, guest_nodes=wishes((2, 6 * GIB)))
    assert not refused(occupancy, saved).permanent
    answer = make_room(occupancy.silicon, occupancy, saved, PLENTY)
    assert isinstance(answer, tuple)
    moves, placement = answer
    assert [move.reason for move in moves] == ["It makes room for default/saved."]
    assert carried_out(occupancy, moves, PLENTY).plus(placement).memory[placement.memory_nodes[0], None] == 6 * GIB
    assert isinstance(make_room(occupancy.silicon, occupancy, saved, Budget(2 * GIB, 8)), Refusal)
    assert isinstance(make_room(occupancy.silicon, occupancy, saved, Budget(8 * GIB, 0)), Refusal)


def test_room_is_made_so_that_a_newcomer_need_not_be_spread() -> None:
    occupancy = on_node(on_node(two_nodes(), 0, request("left", 1, 4 * GIB)), 1, request("right", 1, 3 * GIB))
    answer = make_room(occupancy.silicon, occupancy, request("whole", 2, 6 * GIB), PLENTY)
    assert isinstance(answer, tuple)
    moves, placement = answer
    assert [move.before.request.uid for move in moves] == ["right"], "the one that costs less"
    assert placement.memory_nodes == (1,)


def test_several_moves_if_it_takes_several_and_of_vms_that_are_alike_but_for_memory_the_right_one() -> None:
    occupancy = on_node(two_nodes(), 1, request("stays", 1, 3 * GIB, movable=False))
    for name, size in (("a", 2), ("b", 3)):
        occupancy = on_node(occupancy, 0, request(name, 1, size * GIB))
    for needed, moved in ((5, []), (6, ["b"]), (8, ["a", "b"])):
        saved = request("saved", 1, needed * GIB, guest_nodes=wishes((1, needed * GIB)))
        answer = make_room(occupancy.silicon, occupancy, saved, Budget(5 * GIB, max(1, len(moved))))
        assert isinstance(answer, tuple)
        assert sorted(move.before.request.uid for move in answer[0]) == moved
        carried_out(occupancy, answer[0], PLENTY)


def test_no_moves_where_there_is_no_need_and_none_where_there_is_no_use() -> None:
    occupancy = on_node(two_nodes(), 0, request("left", 1, 4 * GIB))
    assert make_room(occupancy.silicon, occupancy, request("vm"), PLENTY) == ((), placed(occupancy, request("vm")))
    refusal = make_room(occupancy.silicon, occupancy, request("large", 1, 13 * GIB), PLENTY)
    assert refusal == refused(occupancy, request("large", 1, 13 * GIB))


def test_shared_vms_move_together_to_free_a_cpu() -> None:
    """One vCPU on each node keeps a CPU of each from being dedicated; both on one node keep one."""
    occupancy = on_node(on_node(two_nodes(), 0, request("left")), 1, request("right"))
    seven = request("seven", 7, policy=DEDICATED)
    assert "6 can be had: 1 is missing" in refused(occupancy, seven).message
    answer = make_room(occupancy.silicon, occupancy, seven, PLENTY)
    assert isinstance(answer, tuple)
    moves, placement = answer
    assert len(moves) == 1
    assert len(carried_out(occupancy, moves, PLENTY).plus(placement).placements) == 3


vm_shapes = st.lists(st.tuples(st.integers(1, 2), st.sampled_from([1, 1, 2, 3])), min_size=1, max_size=2)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_no_room_is_missed_that_moves_would_have_made(data: st.DataObject) -> None:
    cpus = data.draw(st.lists(st.integers(1, 3), min_size=2, max_size=3))
    sizes = [data.draw(st.integers(4, 8)) for _ in cpus]
    hardware = machine(*(NodeShape(cores=n, memory=size * MIB) for n, size in zip(cpus, sizes, strict=True)))
    silicon = survey(hardware, Rules(cpu_overcommit=2))
    occupancy, vms = Occupancy.of(silicon), []
    for index in range(data.draw(st.integers(2, 5))):
        shape = [(vcpus, size) for vcpus, size in data.draw(vm_shapes)]
        wanted = _asking(f"vm{index}", shape, movable=data.draw(st.integers(0, 4)) > 0)
        homes = data.draw(st.sampled_from(range(len(cpus))))
        answer = place(silicon, occupancy, replace(wanted, near=frozenset({homes})))
        if isinstance(answer, Placement):
            occupancy = occupancy.plus(answer)
            vms.append(Vm(tuple(shape), wanted.movable))
    newcomer = [(1, data.draw(st.integers(3, 8)))] if data.draw(st.booleans()) else data.draw(vm_shapes)
    budget = Budget(data.draw(st.integers(0, 12)) * MIB, data.draw(st.integers(0, 3)))
    made = make_room(silicon, occupancy, _asking("new", newcomer), budget)
    host = Host(tuple(2 * n for n in cpus), tuple(sizes))
    start = _state(occupancy)
    possible = any(
        fits(host, vms, state, Vm(tuple(newcomer), movable=True)) for state in reachable(host, vms, start, budget)
    )
    assert isinstance(made, tuple) == possible
    if isinstance(made, tuple):
        carried_out(occupancy, made[0], budget)


def _asking(name: str, shape: list[tuple[int, int]], *, movable: bool = True) -> Request:
    nodes = wishes(*((vcpus, size * MIB) for vcpus, size in shape))
    vcpus, memory = sum(vcpus for vcpus, _ in shape), sum(size for _, size in shape) * MIB
    return request(name, vcpus, memory, guest_nodes=nodes, movable=movable)


def _state(occupancy: Occupancy) -> State:
    silicon = occupancy.silicon
    state = []
    for uid in occupancy.placements:
        placement = occupancy.placements[uid]
        homes = []
        for node in placement.nodes:
            cells = {cell_of(silicon, placement.vcpus[vcpu]) for vcpu in node.vcpus}
            cpu_nodes = {silicon.cells[cell].node for cell in cells if cell is not None}
            assume(len(cpu_nodes) == 1)
            homes.append((node.host_node, cpu_nodes.pop()))
        state.append(tuple(homes))
    return tuple(state)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_every_move_makes_the_whole_better_and_it_comes_to_an_end(data: st.DataObject) -> None:
    shapes = [
        NodeShape(cores=data.draw(st.integers(1, 4)), memory=4 * GIB) for _ in range(data.draw(st.integers(2, 3)))
    ]
    occupancy = Occupancy.of(survey(machine(*shapes), Rules()))
    for index in range(data.draw(st.integers(2, 9))):
        wanted = request(
            f"vm{index}",
            data.draw(st.integers(1, 4)),
            data.draw(st.sampled_from([256 * MIB, GIB, 3 * GIB])),
            near=data.draw(st.sampled_from([frozenset(), frozenset({0}), frozenset({1})])),
            policy=data.draw(st.sampled_from([DEDICATED, *[request().policy] * 3])),
        )
        answer = place(occupancy.silicon, occupancy, wanted)
        occupancy = occupancy.plus(answer) if isinstance(answer, Placement) else occupancy
    for uid in sorted(occupancy.placements)[::2]:
        occupancy = occupancy.minus(uid)
    budget = Budget(data.draw(st.sampled_from([GIB, 64 * GIB])), data.draw(st.integers(1, 4)))
    for _ in range(40):
        moves = rebalance(occupancy.silicon, occupancy, budget)
        then = carried_out(occupancy, moves, budget)
        if not moves:
            return
        assert _badness(then) < _badness(occupancy)
        occupancy = then
    raise AssertionError("it never rests")


def _badness(occupancy: Occupancy) -> float:
    return waiting(occupancy) + sum(badness(occupancy.silicon, one) for one in occupancy.placements.values())
