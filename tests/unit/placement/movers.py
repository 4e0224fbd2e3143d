"""What moves could do, by trying every sequence of them: the definition in docs/placement.md, in numbers of its own.

For machines of one kind of CPU, without threads, and VMs that share.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from carmel.placement.model import Budget

State = tuple[tuple[tuple[int, int], ...], ...]
"""For each VM, of each of its guest nodes: the node of its memory, the node of its vCPUs."""


@dataclass(frozen=True)
class Vm:
    """Guest nodes as ``(vCPUs, MiB)``."""

    nodes: tuple[tuple[int, int], ...]
    movable: bool


@dataclass(frozen=True)
class Host:
    """Of each node: the most vCPUs, and MiB."""

    vcpus: tuple[int, ...]
    memory: tuple[int, ...]


def reachable(host: Host, vms: Sequence[Vm], start: State, budget: Budget) -> Iterator[State]:
    """Every state that moves within the budget lead to, ``start`` among them."""
    seen: dict[State, list[tuple[int, int]]] = {}
    todo = [(start, budget.moves, budget.memory_bytes >> 20)]
    while todo:
        state, moves, memory = todo.pop()
        if any(moves <= other and memory <= size for other, size in seen.get(state, [])):
            continue
        if state not in seen:
            yield state
        seen.setdefault(state, []).append((moves, memory))
        for index, vm in enumerate(vms) if moves else ():
            for homes in _destinations(len(host.memory), vm, state[index]):
                then = (*state[:index], homes, *state[index + 1 :])
                size = sum(
                    mib for (_, mib), old, new in zip(vm.nodes, state[index], homes, strict=True) if old[0] != new[0]
                )
                if size <= memory and holds(host, vms, then):
                    todo.append((then, moves - 1, memory - size))


def _destinations(nodes: int, vm: Vm, homes: tuple[tuple[int, int], ...]) -> Iterator[tuple[tuple[int, int], ...]]:
    old = sorted({memory for memory, _ in homes})
    if not vm.movable:
        return
    for some in [(node,) * len(old) for node in range(nodes)] + list(combinations(range(nodes), len(old))):
        there = dict(zip(old, some, strict=True))
        yield tuple((there[memory], there[memory]) for memory, _ in homes)


def holds(host: Host, vms: Sequence[Vm], state: State) -> bool:
    vcpus, memory = [0] * len(host.vcpus), [0] * len(host.memory)
    for vm, homes in zip(vms, state, strict=True):
        for (count, size), (memory_node, cpu_node) in zip(vm.nodes, homes, strict=True):
            vcpus[cpu_node] += count
            memory[memory_node] += size
    return all(used <= most for used, most in zip([*vcpus, *memory], [*host.vcpus, *host.memory], strict=True))


def fits(host: Host, vms: Sequence[Vm], state: State, newcomer: Vm) -> bool:
    """Its memory guest node by guest node, its vCPUs anywhere."""
    used = [
        sum(s for vm, h in zip(vms, state, strict=True) for (_, s), (m, _) in zip(vm.nodes, h, strict=True) if m == n)
        for n in range(len(host.memory))
    ]
    loads = sum(count for vm in vms for count, _ in vm.nodes)
    if loads + sum(count for count, _ in newcomer.nodes) > sum(host.vcpus):
        return False
    return any(
        all(
            used[node] + sum(size for (_, size), home in zip(newcomer.nodes, homes, strict=True) if home == node)
            <= most
            for node, most in enumerate(host.memory)
        )
        for homes in product(range(len(host.memory)), repeat=len(newcomer.nodes))
    )
