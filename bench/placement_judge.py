"""Carmel's refusals and choices, put before CP-SAT."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bench.placement_peers import Peer
from bench.placement_placers import Carmel, Part, carmel_parts
from bench.placement_traces import OVERCOMMIT, surveyed, trace
from carmel.hardware.model import Hardware
from carmel.placement.model import Budget, Placement, Refusal, Request
from carmel.placement.occupancy import Occupancy
from carmel.placement.repair import make_room
from carmel.resources.virtualmachine import CpuPolicy
from carmel.units import GIB, MIB

BUDGET = Budget(memory_bytes=64 * GIB, moves=8)
"""What a host has unless told otherwise (spec.placement.rebalance)."""
GIVEN = 0.4
"""So many VMs come with their guest nodes: packing these is where a refusal could be false."""


def judged(name: str, board: str, seeds: int, events: int) -> tuple[str, ...]:
    """Each refusal of a trace of both policies, with nobody moved, and with moves within the budget."""
    peer = Peer("placement_oracle.py")
    plain, moving = Counter[str](), Counter[str]()
    arrivals = 0
    for seed in range(seeds):
        hardware, silicon = surveyed(board)
        carmel = Carmel(silicon)
        for event in trace(hardware, tuple(CpuPolicy), seed, events, GIVEN):
            if event.request is None:
                carmel.drop(event.uid)
                continue
            arrivals += 1
            if carmel.place(event.request) is not None:
                continue
            plain[_verdict(peer, hardware, carmel.occupancy, event.request, Budget(0, 0))] += 1
            answer = make_room(silicon, carmel.occupancy, event.request, BUDGET)
            if isinstance(answer, Refusal):
                moving[_verdict(peer, hardware, carmel.occupancy, event.request, BUDGET)] += 1
                continue
            for move in answer[0]:
                carmel.occupancy = carmel.occupancy.plus(move.after)
            carmel.occupancy = carmel.occupancy.plus(answer[1])
    peer.close()
    return (name, str(arrivals), *_counts(plain), *_counts(moving))


def _counts(verdicts: Counter[str]) -> tuple[str, str, str]:
    false = verdicts["OPTIMAL"] + verdicts["FEASIBLE"]
    unknown = f" ({verdicts['UNKNOWN']} not decided)" if verdicts["UNKNOWN"] else ""
    return str(verdicts.total()), f"{verdicts['INFEASIBLE']}{unknown}", str(false)


def _verdict(peer: Peer, hardware: Hardware, occupancy: Occupancy, request: Request, budget: Budget) -> str:
    question = {
        **_state(hardware, occupancy),
        "ask": "possible",
        "moves": budget.moves,
        "moved_mib": budget.memory_bytes // MIB,
        "request": _newcomer(request),
    }
    return str(peer.ask(question)["status"])


def _newcomer(request: Request) -> dict[str, Any]:
    nodes = [(len(wish.vcpus), wish.memory_bytes // MIB) for wish in request.guest_nodes]
    return {
        "nodes": nodes or [(request.vcpus, request.memory_bytes // MIB)],
        "given": bool(nodes),
        "dedicated": request.policy is CpuPolicy.DEDICATED,
    }


def _state(hardware: Hardware, occupancy: Occupancy) -> dict[str, Any]:
    return {
        "cpus": [len(node.cpus) for node in hardware.nodes],
        "mib": [node.memory_bytes // MIB for node in hardware.nodes],
        "overcommit": int(OVERCOMMIT),
        "vms": [_vm(occupancy, placement) for placement in occupancy.placements.values()],
    }


def _vm(occupancy: Occupancy, placement: Placement) -> dict[str, Any]:
    return {
        "nodes": [(len(node.vcpus), node.memory_bytes // MIB) for node in placement.nodes],
        "homes": [_home(part) for part in carmel_parts(occupancy.silicon, placement)],
        "dedicated": placement.request.policy is CpuPolicy.DEDICATED,
        "movable": placement.request.movable,
    }


def _home(part: Part) -> dict[str, Any]:
    return {
        "memory": {node: size // MIB for node, size in part.memory.items()},
        "vcpus": {node: int(count) for node, count in part.vcpus.items()},
    }


def optimum(name: str, board: str, events: int) -> tuple[str, ...]:
    """What is there at the end of a trace, and how it could be at best."""
    hardware, silicon = surveyed(board)
    carmel = Carmel(silicon)
    for event in trace(hardware, (CpuPolicy.DEDICATED,), 0, events):
        if event.request is None:
            carmel.drop(event.uid)
        else:
            carmel.place(event.request)
    peer = Peer("placement_oracle.py")
    answer = peer.ask({**_state(hardware, carmel.occupancy), "ask": "most_local"})
    peer.close()
    there = carmel.occupancy.placements.values()
    vcpus = sum(one.request.vcpus for one in there)
    whole = sum(
        one.request.vcpus
        for one in there
        if len({node for part in carmel_parts(silicon, one) for node in (*part.vcpus, *part.memory)}) == 1
    )
    return (
        name,
        str(len(there)),
        *(f"{value} of {vcpus}" for value in (whole, answer["best"], min(vcpus, answer["bound"]))),
    )
