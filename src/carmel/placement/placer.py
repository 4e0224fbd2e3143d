"""Where a VM goes. Complete: it refuses only what docs/placement.md defines to be impossible."""

from __future__ import annotations

from dataclasses import replace

from carmel.placement.checks import refuse_forever
from carmel.placement.choice import spread, whole
from carmel.placement.explain import Decision, next_best, reasons
from carmel.placement.layout import assemble
from carmel.placement.model import Placement, Refusal, Request
from carmel.placement.occupancy import Occupancy
from carmel.placement.packing import TooComplex, can_pack, pack
from carmel.placement.refusals import no_packing, no_room, too_complex
from carmel.placement.room import Rooms, rooms
from carmel.placement.silicon import Silicon


def place(silicon: Silicon, occupancy: Occupancy, request: Request) -> Placement | Refusal:
    """The best place that there is now, moving nobody. The same for the same values, always.

    A VM that ``occupancy`` knows already is placed as if it were not there yet.
    """
    decision = decide(silicon, occupancy, request)
    if isinstance(decision, Refusal):
        return decision
    placement = assemble(decision.occupancy, request, decision.layout)
    return replace(placement, reasons=reasons(decision, placement), next_best=next_best(decision))


def decide(silicon: Silicon, occupancy: Occupancy, request: Request) -> Decision | Refusal:
    """Which nodes, yet without single CPUs and sentences."""
    refusal = refuse_forever(silicon, request)
    if refusal is not None:
        return refusal
    without = occupancy.on(silicon).minus(request.uid)
    found = rooms(without, request)
    if not found.suffice:
        return no_room(found)
    if len(request.guest_nodes) < 2:
        choices = whole(found)
        if choices:
            return Decision(without, choices[0].layout, choices)
    if request.guest_nodes:
        return _packed(found)
    return Decision(without, spread(found), ())


def possible(occupancy: Occupancy, request: Request) -> bool:
    """Would ``place`` find a place? Of requests that are not wrong in themselves; nothing is chosen or said."""
    found = rooms(occupancy, request)
    return found.suffice and (not request.guest_nodes or can_pack(found))


def _packed(found: Rooms) -> Decision | Refusal:
    try:
        layout = pack(found)
        if layout is not None:
            return Decision(found.occupancy, layout, ())
        empty = pack(rooms(Occupancy.of(found.occupancy.silicon), found.request))
    except TooComplex:
        return too_complex(found.request)
    return no_packing(found, permanent=empty is None)
