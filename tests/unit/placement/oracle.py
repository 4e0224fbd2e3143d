"""What is possible, by trying everything: slow, simple, and nothing of it shared with what it judges.

It is the definition in docs/placement.md, word for word, over raw hardware, rules and placements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, product

from carmel.hardware.model import Hardware
from carmel.placement.model import Placement, Request, Rules
from carmel.resources.virtualmachine import CpuPolicy
from carmel.units import MIB

Pool = tuple[int, int]
"""Node and kind."""


class Oracle:
    """For machines of a dozen CPUs."""

    def __init__(self, hardware: Hardware, rules: Rules, placements: Iterable[Placement]) -> None:
        self.hardware = hardware
        self.rules = rules
        self.placements = tuple(placements)
        self.place_of: Mapping[int, Pool] = {cpu.id: (cpu.node, cpu.kind) for cpu in hardware.cpus}
        self.core_of: Mapping[int, frozenset[int]] = {
            cpu: frozenset(core.cpus) for core in hardware.cores for cpu in core.cpus
        }

    def possible(self, request: Request) -> bool:
        return self._memory_possible(request) and any(
            self._cpus_possible(request, kind) for kind in range(len(self.hardware.cpu_kinds))
        )

    def sound(self, placements: Sequence[Placement] | None = None) -> bool:
        """No limit is broken by VMs that are there together."""
        there = self.placements if placements is None else placements
        owned = [
            cpu for one in there if one.request.policy is CpuPolicy.DEDICATED for cpus in one.vcpus for cpu in cpus
        ]
        cores = [
            frozenset(core for cpus in one.vcpus for cpu in cpus for core in self.core_of[cpu])
            for one in there
            if one.request.policy is CpuPolicy.DEDICATED
        ]
        if len(owned) != len(set(owned)) or any(one & other for one, other in combinations(cores, 2)):
            return False
        taken = frozenset().union(*cores)
        return self._loads_hold(self._loads(there), taken) and all(
            used <= self._capacity(node, page) for (node, page), used in self._used(there).items()
        )

    def _cpus_possible(self, request: Request, kind: int) -> bool:
        loads, taken = self._loads(self.placements), self._taken()
        if request.policy is CpuPolicy.DEDICATED:
            kept = self.rules.reserved_cpus | self.rules.shared_only_cpus
            free = [
                cpu
                for cpu, pool in self.place_of.items()
                if pool[1] == kind and not self.core_of[cpu] & taken and not self.core_of[cpu] & kept
            ]
            return any(
                self._loads_hold(loads, taken.union(*(self.core_of[cpu] for cpu in own)))
                for own in combinations(free, request.vcpus)
            )
        pools = sorted({pool for pool in self.place_of.values() if pool[1] == kind})
        return any(
            self._loads_hold({**loads, **{p: loads.get(p, 0) + n for p, n in zip(pools, split, strict=True)}}, taken)
            for split in _splits(request.vcpus, len(pools))
        )

    def _loads_hold(self, loads: Mapping[Pool, int], taken: frozenset[int]) -> bool:
        return all(
            load <= self.rules.cpu_overcommit * len(self._shared_cpus(pool, taken))
            for pool, load in loads.items()
            if load
        )

    def _shared_cpus(self, pool: Pool, taken: frozenset[int]) -> list[int]:
        gone = taken | self.rules.reserved_cpus
        return [cpu for cpu, where in self.place_of.items() if where == pool and cpu not in gone]

    def _loads(self, placements: Iterable[Placement]) -> dict[Pool, int]:
        loads: dict[Pool, int] = {}
        for one in placements:
            if one.request.policy is CpuPolicy.SHARED:
                for cpus in one.vcpus:
                    pools = {self.place_of[cpu] for cpu in cpus}
                    assert len(pools) == 1, f"{one.request.name} floats over {pools}"
                    pool = pools.pop()
                    loads[pool] = loads.get(pool, 0) + 1
        return loads

    def _taken(self) -> frozenset[int]:
        return frozenset(
            other
            for one in self.placements
            if one.request.policy is CpuPolicy.DEDICATED
            for cpus in one.vcpus
            for cpu in cpus
            for other in self.core_of[cpu]
        )

    def _memory_possible(self, request: Request) -> bool:
        used = self._used(self.placements)
        unit = max(MIB, request.page_bytes or 0)
        free = [
            max(0, self._capacity(node.id, request.page_bytes) - used.get((node.id, request.page_bytes), 0)) // unit
            for node in self.hardware.nodes
        ]
        if not request.guest_nodes:
            return sum(free) >= -(-request.memory_bytes // unit)
        sizes = [wish.memory_bytes // unit for wish in request.guest_nodes]
        return any(
            all(
                sum(size for size, home in zip(sizes, homes, strict=True) if home == node) <= room
                for node, room in enumerate(free)
            )
            for homes in product(range(len(free)), repeat=len(sizes))
        )

    def _capacity(self, node: int, page: int | None) -> int:
        silicon = next(one for one in self.hardware.nodes if one.id == node)
        if page is not None:
            return sum(pool.total * page for pool in silicon.huge_pages if pool.size_bytes == page)
        pools = sum(pool.total * pool.size_bytes for pool in silicon.huge_pages)
        return silicon.memory_bytes - pools - self.rules.reserved_memory.get(node, 0)

    @staticmethod
    def _used(placements: Iterable[Placement]) -> dict[tuple[int, int | None], int]:
        used: dict[tuple[int, int | None], int] = {}
        for one in placements:
            for node in one.nodes:
                key = (node.host_node, one.request.page_bytes)
                used[key] = used.get(key, 0) + node.memory_bytes
        return used


def _splits(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    if parts <= 1:
        yield from [(total,)] if parts else []
        return
    for first in range(total + 1):
        for rest in _splits(total - first, parts - 1):
            yield (first, *rest)
