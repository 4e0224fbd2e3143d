"""What arrives at a machine and leaves it again: seeded, long-tailed in size and in life."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from carmel.hardware.boards import synthetic
from carmel.hardware.model import Hardware
from carmel.placement.model import GuestNodeWish, Request, Rules
from carmel.placement.silicon import Silicon, survey
from carmel.resources.virtualmachine import CpuPolicy
from carmel.units import MIB

BOARDS = {
    "Mt. Jade 2 x 80": "mt-jade-altra",
    "Mt. Jade 2 x 128": "mt-jade-altra-max",
    "Altra quadrants (8 nodes)": "mt-jade-altra-quadrant",
    "Kunpeng 920 (4 nodes)": "kunpeng-920-2p",
    "Raspberry Pi 4": "raspberry-pi-4b",
}
OVERCOMMIT = 4.0
"""Low, so that CPUs and not only memory run out."""


@dataclass(frozen=True)
class Event:
    """A VM comes, or (``request`` ``None``) goes."""

    uid: str
    request: Request | None


def surveyed(board: str) -> tuple[Hardware, Silicon]:
    """Nothing kept for the host: what peers cannot be told to keep, nobody keeps."""
    hardware = synthetic(board)
    return hardware, survey(hardware, Rules(cpu_overcommit=OVERCOMMIT))


def trace(hardware: Hardware, policies: tuple[CpuPolicy, ...], seed: int, events: int, given: float = 0) -> list[Event]:
    """``events`` arrivals and the departures between them. ``given``: the part of VMs whose guest nodes are given, as
    those of a VM that was suspended are."""
    dice = random.Random(f"{hardware.board}{policies}{seed}")
    lives: list[tuple[float, str]] = []
    found: list[Event] = []
    cpus, memory = len(hardware.cpus), hardware.memory_bytes
    now = 0.0
    for index in range(events):
        now += dice.expovariate(1.0)
        while lives and lives[0][0] <= now:
            found.append(Event(lives.pop(0)[1], None))
        request = _request(dice, f"vm{index}", cpus, memory // cpus, dice.choice(policies), given)
        found.append(Event(request.uid, request))
        lives.append((now + _life(dice, cpus, policies), request.uid))
        lives.sort()
    return found


def _life(dice: random.Random, cpus: int, policies: tuple[CpuPolicy, ...]) -> float:
    """Long-tailed, and in proportion to the machine: it fills up, and some must be refused."""
    vcpus = cpus * (OVERCOMMIT if CpuPolicy.SHARED in policies else 1)
    return float(dice.paretovariate(1.5) / 3 * vcpus * 1.2 / 5)


def _request(dice: random.Random, uid: str, cpus: int, per_cpu: int, policy: CpuPolicy, given: float) -> Request:
    most = max(1, cpus * 3 // 4)
    vcpus = min(most, max(1, int(dice.paretovariate(0.9))))
    share = dice.choice((0.25, 0.5, 1.0, 2.0)) / (OVERCOMMIT if policy is CpuPolicy.SHARED else 1)
    size = max(64 * MIB, int(vcpus * per_cpu * share) // (64 * MIB) * 64 * MIB)
    nodes: tuple[GuestNodeWish, ...] = ()
    if dice.random() < given:
        nodes = tuple(_guest_nodes(dice, vcpus, size))
    return Request(uid, f"default/{uid}", vcpus, size, policy, guest_nodes=nodes)


def _guest_nodes(dice: random.Random, vcpus: int, size: int) -> Iterator[GuestNodeWish]:
    grains = size // MIB
    if vcpus < 2 or dice.random() < 0.5:
        yield GuestNodeWish(tuple(range(vcpus)), size, (10,))
        return
    first = grains * dice.choice((1, 2, 3)) // 4 * MIB
    yield GuestNodeWish(tuple(range(vcpus // 2)), first, (10, 20))
    yield GuestNodeWish(tuple(range(vcpus // 2, vcpus)), size - first, (20, 10))
