"""Moves that make things better: in the background, or because somebody needs the room."""

from __future__ import annotations

from carmel.placement.choice import whole
from carmel.placement.cost import apart, badness, far, remote_vcpus, waiting
from carmel.placement.explain import nodes_in_words
from carmel.placement.model import Budget, Move, Placement, Refusal, Request
from carmel.placement.moving import Step, after, moved, steps
from carmel.placement.occupancy import Occupancy, cells_of
from carmel.placement.placer import place, possible
from carmel.placement.promise import moves_may_help
from carmel.placement.refusals import TOO_COMPLEX
from carmel.placement.room import rooms
from carmel.placement.search import Path, Search
from carmel.placement.silicon import Silicon
from carmel.units import GIB

WORTHWHILE = 0.5
"""Less than half a CPU's worth is left as it is: a move costs copying, and a guest notices."""
_DETOURS = 4
_DETOUR_MOVES = 3
"""For how many VMs, the worst placed, others are asked out of the way, and with how many moves altogether."""


def rebalance(silicon: Silicon, occupancy: Occupancy, budget: Budget) -> tuple[Move, ...]:
    """Moves for the better, in the order in which each is possible. VMs that are not ``movable`` stay."""
    occupancy = occupancy.on(silicon)
    moves: list[Move] = []
    while len(moves) < budget.moves:
        left = Budget(budget.memory_bytes - sum(move.bytes for move in moves), budget.moves - len(moves))
        path = _best_step(occupancy, left) or _best_detour(occupancy, left)
        if not path:
            break
        for step, reason in zip(path, _why(occupancy, path), strict=True):
            moves.append(_move(occupancy, step, reason))
            occupancy = occupancy.plus(moves[-1].after)
    return tuple(moves)


def make_room(
    silicon: Silicon, occupancy: Occupancy, request: Request, budget: Budget
) -> tuple[tuple[Move, ...], Placement] | Refusal:
    """A place for a VM, if need be after moves of others: where it would be refused, or be spread over nodes though it
    fits one. No moves: there was no need, or no use. The refusal is that of ``place``."""
    first = place(silicon, occupancy, request)
    occupancy = occupancy.on(silicon).minus(request.uid)
    if isinstance(first, Refusal):
        if first.permanent or first.code == TOO_COMPLEX:
            return first
        path = _for_any_place(occupancy, request, budget)
    elif len(first.memory_nodes) > 1 or remote_vcpus(silicon, first):
        path = _for_one_node(occupancy, request, budget)
    else:
        path = None
    moves: list[Move] = []
    for step in path or ():
        moves.append(_move(occupancy, step, f"It makes room for {request.name}."))
        occupancy = occupancy.plus(moves[-1].after)
    last = place(silicon, occupancy, request) if moves else first
    return last if isinstance(last, Refusal) else (tuple(moves), last)


def _for_any_place(occupancy: Occupancy, request: Request, budget: Budget) -> Path | None:
    if not moves_may_help(occupancy, request):
        return None

    def fits(then: Occupancy) -> bool:
        return possible(then, request)

    found = Search(occupancy, fits, budget, missing=lambda then: _missing(then, request)).descend()
    if found is not None:
        return found
    for node in occupancy.silicon.nodes if len(request.guest_nodes) == 1 else ():
        found = Search(occupancy, fits, budget, source=node).run()
        if found is not None:
            return found
    return Search(occupancy, fits, budget).run()


def _missing(occupancy: Occupancy, request: Request) -> int:
    """What a VM lacks to fit, as a number to make smaller: vCPUs, then bytes of its largest guest node."""
    found = rooms(occupancy, request)
    if not found.kinds:
        return (request.vcpus - found.most_cpus) * GIB
    largest = max((wish.memory_bytes for wish in request.guest_nodes), default=0)
    return largest - max(found.memory.values())


def _for_one_node(occupancy: Occupancy, request: Request, budget: Budget) -> Path | None:
    """The cheapest of the nodes that could hold it all."""
    if len(request.guest_nodes) > 1:
        return None

    def fits(then: Occupancy) -> bool:
        return bool(whole(rooms(then, request)))

    empty = whole(rooms(Occupancy.of(occupancy.silicon), request))
    sources = sorted({node for choice in empty for node in choice.layout.nodes(occupancy.silicon)})
    found = [path for node in sources if (path := Search(occupancy, fits, budget, source=node).run()) is not None]
    return min(found, key=_price) if found else None


def _price(path: Path) -> tuple[int, int]:
    return (len(path), sum(step.bytes for step in path))


def _move(occupancy: Occupancy, step: Step, why: str) -> Move:
    return Move(occupancy.current(step.uid), moved(occupancy, step, why), step.bytes, why)


def _best_step(occupancy: Occupancy, budget: Budget) -> Path | None:
    """The one move that gains most for what it costs."""
    best: tuple[float, Path] | None = None
    before = waiting(occupancy)
    for uid, placement in sorted(occupancy.placements.items()):
        here = badness(occupancy.silicon, placement)
        if not placement.request.movable or not (here or before):
            continue
        for step in steps(occupancy, uid):
            if step.bytes > budget.memory_bytes:
                continue
            then = after(occupancy, step)
            gain = here + before - waiting(then) - badness(occupancy.silicon, then.placements[uid])
            worth = gain / (step.bytes + GIB)
            if gain >= WORTHWHILE and (best is None or worth > best[0]):
                best = (worth, (step,))
    return best[1] if best is not None else None


def _best_detour(occupancy: Occupancy, budget: Budget) -> Path | None:
    """For a VM that would be better off, were others not in its way: their moves, then its own."""
    silicon = occupancy.silicon
    losses = {
        uid: badness(silicon, placement)
        for uid, placement in occupancy.placements.items()
        if placement.request.movable and not placement.request.guest_nodes
    }
    worst = sorted((uid for uid, loss in losses.items() if loss >= WORTHWHILE), key=lambda uid: (-losses[uid], uid))
    for uid in worst[:_DETOURS]:
        for node in silicon.nodes:
            path = _detour(occupancy, uid, node, budget)
            if path is not None and _gain(occupancy, path) >= WORTHWHILE:
                return path
    return None


def _detour(occupancy: Occupancy, uid: str, node: int, budget: Budget) -> Path | None:
    """Moves that let this VM come to be on this node alone, and that last one."""
    size = occupancy.placements[uid].request.memory_bytes
    left = Budget(budget.memory_bytes - size, min(budget.moves, _DETOUR_MOVES) - 1)

    def arrival(then: Occupancy) -> Step | None:
        return next((step for step in steps(then, uid) if step.layout.nodes(then.silicon) == {node}), None)

    path = Search(occupancy, lambda then: arrival(then) is not None, left, node, frozenset((uid,))).run()
    if path is None:
        return None
    then = occupancy
    for step in path:
        then = after(then, step)
    last = arrival(then)
    return (*path, last) if last is not None else None


def _gain(occupancy: Occupancy, path: Path) -> float:
    then = occupancy
    for step in path:
        then = after(then, step)
    uids = {step.uid for step in path}
    return _loss(occupancy, uids) - _loss(then, uids)


def _loss(occupancy: Occupancy, uids: set[str]) -> float:
    return waiting(occupancy) + sum(badness(occupancy.silicon, occupancy.placements[uid]) for uid in uids)


def _why(occupancy: Occupancy, path: Path) -> list[str]:
    """A sentence for each move: the last is what the others are for."""
    *helpers, last = path
    silicon, placement = occupancy.silicon, occupancy.placements[last.uid]
    there = nodes_in_words(sorted(last.layout.nodes(silicon)))
    then = occupancy
    for step in path:
        then = after(then, step)
    fresh = then.placements[last.uid]
    if remote_vcpus(silicon, fresh) < (remote := remote_vcpus(silicon, placement)):
        reason = f"{remote} of its vCPUs are on another node than their memory; on {there} they are with it."
    elif apart(fresh) < apart(placement):
        reason = f"It is spread over {nodes_in_words(placement.memory_nodes)}; {there} has room for all of it."
    elif far(silicon, fresh) < far(silicon, placement):
        reason = f"Its devices are nearer to {there}."
    else:
        crowd = f"{_crowd(occupancy, occupancy, placement)}; {_crowd(occupancy, then, fresh)} once it is there."
        reason = crowd[0].upper() + crowd[1:]
    return [*(f"It makes room on {there} for {placement.request.name}." for _ in helpers), reason]


def _crowd(occupancy: Occupancy, then: Occupancy, placement: Placement) -> str:
    """``Node 0 has 24 vCPUs for 8 CPUs``: of the fullest cell that the VM is in."""
    silicon = occupancy.silicon

    def crowding(index: int) -> float:
        return then.load[index] / max(1, then.pool(silicon.cells[index]).bit_count())

    cell = silicon.cells[max(sorted(cells_of(silicon, placement)), key=crowding)]
    return f"node {cell.node} has {then.load[cell.index]} vCPUs for {then.pool(cell).bit_count()} CPUs"
