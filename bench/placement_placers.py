"""Three ways to place, each behind the same three words: ``place``, ``drop``, ``parts``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from bench.placement_peers import Peer
from bench.placement_traces import OVERCOMMIT
from carmel.hardware.model import Hardware
from carmel.placement.model import Placement, Request
from carmel.placement.occupancy import Occupancy, cell_of
from carmel.placement.placer import place
from carmel.placement.silicon import Silicon
from carmel.resources.virtualmachine import CpuPolicy
from carmel.units import MIB


@dataclass(frozen=True)
class Part:
    """A NUMA node that a guest sees, or all of a guest that sees none: where its vCPUs and bytes are, by host node."""

    vcpus: Mapping[int, float]
    memory: Mapping[int, int]


class Placer(Protocol):
    """``seconds`` of every decision: of CPU time, so that a busy machine does not count."""

    seconds: list[float]

    def place(self, request: Request) -> list[Part] | None: ...

    def drop(self, uid: str) -> None: ...

    def close(self) -> None: ...


@dataclass
class Carmel:
    silicon: Silicon
    seconds: list[float] = field(default_factory=list)
    occupancy: Occupancy = field(init=False)

    def __post_init__(self) -> None:
        self.occupancy = Occupancy.of(self.silicon)

    def place(self, request: Request) -> list[Part] | None:
        began = time.thread_time()
        answer = place(self.silicon, self.occupancy, request)
        self.seconds.append(time.thread_time() - began)
        if not isinstance(answer, Placement):
            return None
        self.occupancy = self.occupancy.plus(answer)
        return carmel_parts(self.silicon, answer)

    def drop(self, uid: str) -> None:
        self.occupancy = self.occupancy.minus(uid)

    def close(self) -> None:
        pass


def carmel_parts(silicon: Silicon, placement: Placement) -> list[Part]:
    parts = []
    for node in placement.nodes:
        vcpus: dict[int, float] = {}
        for vcpu in node.vcpus:
            cell = cell_of(silicon, placement.vcpus[vcpu])
            assert cell is not None
            home = silicon.cells[cell].node
            vcpus[home] = vcpus.get(home, 0) + 1
        parts.append(Part(vcpus, {node.host_node: node.memory_bytes}))
    return parts


@dataclass
class FirstFit:
    """Without NUMA: the lowest free CPUs, or floating over all; memory where it is first touched, which is beside the
    CPUs that touch it as long as there is some."""

    hardware: Hardware
    seconds: list[float] = field(default_factory=list)
    there: dict[str, tuple[Request, list[Part], set[int]]] = field(default_factory=dict)

    def place(self, request: Request) -> list[Part] | None:
        began = time.thread_time()
        parts, cpus = self._parts(request)
        self.seconds.append(time.thread_time() - began)
        if parts is not None:
            self.there[request.uid] = (request, parts, cpus)
        return parts

    def _parts(self, request: Request) -> tuple[list[Part] | None, set[int]]:
        taken = {cpu for _, _, own in self.there.values() for cpu in own}
        free = [cpu for cpu in self.hardware.cpus if cpu.id not in taken]
        if request.policy is CpuPolicy.DEDICATED:
            chosen = free[: request.vcpus]
            if len(chosen) < request.vcpus:
                return None, set()
        else:
            chosen = free
            load = sum(one.vcpus for one, _, _ in self.there.values() if one.policy is CpuPolicy.SHARED)
            if load + request.vcpus > len(free) * OVERCOMMIT:
                return None, set()
        vcpus: dict[int, float] = {}
        for cpu in chosen:
            vcpus[cpu.node] = vcpus.get(cpu.node, 0) + request.vcpus / len(chosen)
        memory = self._touch(request.memory_bytes, vcpus)
        own = {cpu.id for cpu in chosen} if request.policy is CpuPolicy.DEDICATED else set()
        return ([Part(vcpus, memory)], own) if memory is not None else (None, set())

    def _touch(self, size: int, vcpus: Mapping[int, float]) -> dict[int, int] | None:
        left = {node.id: node.memory_bytes // MIB for node in self.hardware.nodes}
        for _, parts, _ in self.there.values():
            for part in parts:
                for node, used in part.memory.items():
                    left[node] -= used // MIB
        rest, got = size // MIB, dict.fromkeys(left, 0)
        if rest > sum(left.values()):
            return None
        total = sum(vcpus.values())
        for node, weight in vcpus.items():
            got[node] = min(left[node], int(size // MIB * weight / total))
        rest -= sum(got.values())
        for node in sorted(left, key=lambda node: (node not in vcpus, node)):
            more = min(rest, left[node] - got[node])
            got[node] += more
            rest -= more
        return {node: share * MIB for node, share in got.items() if share}

    def drop(self, uid: str) -> None:
        del self.there[uid]

    def close(self) -> None:
        pass


@dataclass
class Nova:
    """OpenStack's, in its own process; the time is taken there, in the same way."""

    hardware: Hardware
    seconds: list[float] = field(default_factory=list)
    peer: Peer = field(init=False)

    def __post_init__(self) -> None:
        self.peer = Peer("placement_nova.py")
        sockets = {cpu.node: cpu.socket for cpu in self.hardware.cpus}
        cells = [
            {"id": node.id, "cpus": node.cpus, "mib": node.memory_bytes // MIB, "socket": sockets[node.id]}
            for node in self.hardware.nodes
        ]
        self.peer.tell({"cells": cells, "overcommit": OVERCOMMIT})

    def place(self, request: Request) -> list[Part] | None:
        wanted = {
            "place": request.uid,
            "vcpus": request.vcpus,
            "mib": request.memory_bytes // MIB,
            "policy": request.policy.value,
        }
        answer = self.peer.ask(wanted)
        self.seconds.append(answer["microseconds"] / 1e6)
        if answer["cells"] is None:
            return None
        return [Part({one["node"]: one["vcpus"]}, {one["node"]: one["mib"] * MIB}) for one in answer["cells"]]

    def drop(self, uid: str) -> None:
        self.peer.ask({"drop": uid})

    def close(self) -> None:
        self.peer.close()
