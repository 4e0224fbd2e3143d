"""How well VMs are placed, and how fast, beside OpenStack's Nova and beside first fit that knows no NUMA; and whether a
refusal is ever false, as CP-SAT sees it.

``python -m bench.placement`` takes some minutes, the first time some more: the peers are installed.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence

from bench.harness import machine, table
from bench.placement_judge import judged, optimum
from bench.placement_placers import Carmel, FirstFit, Nova, Part, Placer
from bench.placement_traces import BOARDS, Event, surveyed, trace
from carmel.hardware.model import Hardware
from carmel.placement.model import Request
from carmel.resources.virtualmachine import CpuPolicy
from carmel.units import MIB

WAITING = 200
"""VMs that are there when decisions are timed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300, help="arrivals in each trace")
    parser.add_argument("--seeds", type=int, default=2, help="traces for each machine and policy")
    options = parser.parse_args()
    how = f"python -m bench.placement --events {options.events} --seeds {options.seeds}"
    print(f"Measured on {machine()} by `{how}`.\n\n{_HOW_TO_READ}")
    for policy in CpuPolicy:
        rows = [row for name, board in BOARDS.items() for row in compared(name, board, policy, options)]
        print(table(f"{policy.value} VMs, at equal acceptance", rows, _QUALITY))
    print(table(f"One decision with {WAITING} VMs on Mt. Jade 2 x 128", timed(options.events), _TIMES))
    rows = [judged(name, board, options.seeds, options.events) for name, board in BOARDS.items()]
    print(table("Refusals, held to CP-SAT", rows, _REFUSALS))
    rows = [optimum(name, board, options.events) for name, board in BOARDS.items()]
    print(table("Dedicated vCPUs of VMs on one node: Carmel, and the offline optimum for the same VMs", rows, _OPTIMUM))


_HOW_TO_READ = """\
Seeded traces of VMs that come and go, long-tailed in size and life and scaled to the machine, so that it fills up and
some must be refused. Times are of CPU, not of the clock. *Equal acceptance*: all three see the same arrivals, and a
VM stays only if all three have a place for it. Nova refuses what it cannot split evenly over nodes that have room for
the parts, so these are arrivals that suit it. *Local* vCPUs run on the node that the memory of their guest node is
on; local memory likewise. *Fragmentation*: how much less than all that is free, or than a whole node, one VM on one
node could have (CPUs for dedicated VMs, memory for shared ones). Nova sees VMs of one policy only, since it keeps the
two apart by host. First fit takes the lowest free CPUs, or floats over all, and has memory beside the CPUs that touch
it first. Every refusal of traces of both policies, where two fifths of the VMs come with guest nodes that are given,
goes to CP-SAT: once with nobody moved, once with moves within a host's default budget. CP-SAT may make these all at
once: what it calls impossible is so in any order. The offline optimum knows all VMs beforehand; how far it is away is
only told.
"""

_QUALITY = (
    "machine",
    "placed by",
    "accepted",
    "local vCPUs",
    "local memory",
    "vCPUs in VMs on one node",
    "fragmentation",
    "median decision",
)
_TIMES = ("placed by", "p50", "p99", "worst", "decisions")
_REFUSALS = (
    "machine",
    "arrivals",
    "refused",
    "of these proven right",
    "false",
    "with moves: refused",
    "proven right",
    "false",
)
_OPTIMUM = ("machine", "VMs there", "Carmel", "best found", "bound")


class Tally:
    """Of one placer: what its VMs have, and averages over all that is there after every arrival."""

    def __init__(self, hardware: Hardware, placer: Placer) -> None:
        self.hardware = hardware
        self.placer = placer
        self.there: dict[str, list[Part]] = {}
        self.vcpus: list[float] = []
        self.memory: list[float] = []
        self.whole: list[float] = []
        self.holes: list[float] = []

    def look(self, policy: CpuPolicy) -> None:
        parts = [part for some in self.there.values() for part in some]
        vcpus = _vcpus(parts)
        memory = sum(sum(part.memory.values()) for part in parts)
        if vcpus:
            self.vcpus.append(sum(_local_vcpus(part) for part in parts) / vcpus)
            self.memory.append(sum(_local_memory(part) for part in parts) / memory)
            self.whole.append(sum(_vcpus(some) for some in self.there.values() if len(_nodes(some)) == 1) / vcpus)
        self.holes.append(self._fragmentation(parts, policy))

    def _fragmentation(self, parts: Sequence[Part], policy: CpuPolicy) -> float:
        """How much less than the whole of what is free (CPUs for dedicated VMs, else memory) one VM on one node could
        have, or than a whole node."""
        size: dict[int, float] = {}
        for node in self.hardware.nodes:
            size[node.id] = len(node.cpus) if policy is CpuPolicy.DEDICATED else node.memory_bytes
        free = dict(size)
        for part in parts:
            for node_id, used in (part.vcpus if policy is CpuPolicy.DEDICATED else part.memory).items():
                free[node_id] -= used
        possible = min(max(size.values()), sum(free.values()))
        return 1 - max(free.values()) / possible if possible >= 1 else 0.0


def _vcpus(parts: Sequence[Part]) -> float:
    return sum(sum(part.vcpus.values()) for part in parts)


def _nodes(parts: Sequence[Part]) -> set[int]:
    return {node for part in parts for node in (*part.vcpus, *part.memory)}


def _local_vcpus(part: Part) -> float:
    memory = sum(part.memory.values())
    return sum(count * part.memory.get(node, 0) / memory for node, count in part.vcpus.items())


def _local_memory(part: Part) -> float:
    vcpus = sum(part.vcpus.values())
    return sum(size * part.vcpus.get(node, 0) / vcpus for node, size in part.memory.items()) if vcpus else 0.0


def compared(name: str, board: str, policy: CpuPolicy, options: argparse.Namespace) -> list[tuple[str, ...]]:
    """All three see the same arrivals; a VM stays only if all three have a place for it."""
    names = ("Carmel", "Nova", "first fit")
    vcpus: dict[str, list[float]] = {one: [] for one in names}
    memory: dict[str, list[float]] = {one: [] for one in names}
    whole: dict[str, list[float]] = {one: [] for one in names}
    holes: dict[str, list[float]] = {one: [] for one in names}
    seconds: dict[str, list[float]] = {one: [] for one in names}
    accepted = arrivals = 0
    for seed in range(options.seeds):
        hardware, silicon = surveyed(board)
        tallies = {
            "Carmel": Tally(hardware, Carmel(silicon)),
            "Nova": Tally(hardware, Nova(hardware)),
            "first fit": Tally(hardware, FirstFit(hardware)),
        }
        events = trace(hardware, (policy,), seed, options.events)
        came, stayed = _lock_step(list(tallies.values()), events, policy)
        arrivals, accepted = arrivals + came, accepted + stayed
        for one, tally in tallies.items():
            vcpus[one] += tally.vcpus
            memory[one] += tally.memory
            whole[one] += tally.whole
            holes[one] += tally.holes
            seconds[one] += tally.placer.seconds
            tally.placer.close()
    return [
        (
            name,
            one,
            f"{accepted} of {arrivals}",
            f"{statistics.mean(vcpus[one]):.1%}",
            f"{statistics.mean(memory[one]):.1%}",
            f"{statistics.mean(whole[one]):.1%}",
            f"{statistics.mean(holes[one]):.1%}",
            f"{statistics.median(seconds[one]) * 1e6:.0f} us",
        )
        for one in names
    ]


def _lock_step(tallies: Sequence[Tally], events: Sequence[Event], policy: CpuPolicy) -> tuple[int, int]:
    came = stayed = 0
    for event in events:
        if event.request is None:
            for tally in tallies:
                if tally.there.pop(event.uid, None) is not None:
                    tally.placer.drop(event.uid)
            continue
        came += 1
        answers = [tally.placer.place(event.request) for tally in tallies]
        everywhere = all(answer is not None for answer in answers)
        stayed += everywhere
        for tally, answer in zip(tallies, answers, strict=True):
            if answer is not None and everywhere:
                tally.there[event.uid] = answer
            elif answer is not None:
                tally.placer.drop(event.uid)
            tally.look(policy)
    return came, stayed


def timed(decisions: int) -> list[tuple[str, ...]]:
    """Every decision finds the same 200 VMs there, and what it decides is dropped again."""
    hardware, silicon = surveyed("mt-jade-altra-max")
    rows = []
    mixed = [
        Request(f"there{n}", f"default/there{n}", n % 2 + 1, (n % 3 + 1) * 512 * MIB, _policy(n))
        for n in range(WAITING)
    ]
    wanted = [event.request for event in trace(hardware, tuple(CpuPolicy), 1, decisions) if event.request is not None]
    placers: list[tuple[str, Placer]] = [("Carmel", Carmel(silicon)), ("Nova", Nova(hardware))]
    for name, placer in placers:
        for request in mixed:
            assert placer.place(request) is not None
        placer.seconds.clear()
        for request in wanted:
            if placer.place(request) is not None:
                placer.drop(request.uid)
        ordered = sorted(placer.seconds)
        p50, p99 = (ordered[int(len(ordered) * part)] for part in (0.5, 0.99))
        rows.append((name, *(f"{value * 1e3:.2f} ms" for value in (p50, p99, ordered[-1])), str(len(ordered))))
        placer.close()
    return rows


def _policy(index: int) -> CpuPolicy:
    return CpuPolicy.DEDICATED if index % 4 == 0 else CpuPolicy.SHARED


if __name__ == "__main__":
    main()
