"""Why here, and what the next best was: sentences for who looks at a VM and wonders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from carmel.cpulist import format_cpu_list
from carmel.placement.bits import mask_of
from carmel.placement.choice import Choice
from carmel.placement.layout import Layout
from carmel.placement.model import Placement, Request
from carmel.placement.occupancy import Occupancy
from carmel.placement.silicon import Silicon
from carmel.resources.virtualmachine import CpuPolicy
from carmel.units import format_bytes, human_bytes


@dataclass(frozen=True, slots=True)
class Decision:
    """``choices``: the single nodes that would have done, best first; empty where it is on several, or had no choice
    because its guest nodes were given."""

    occupancy: Occupancy
    layout: Layout
    choices: Sequence[Choice]


@dataclass(frozen=True, slots=True)
class _Case:
    """A decision and the placement that came of it."""

    decision: Decision
    placement: Placement

    @property
    def request(self) -> Request:
        return self.placement.request

    @property
    def silicon(self) -> Silicon:
        return self.decision.occupancy.silicon

    @property
    def nodes(self) -> list[int]:
        return sorted(self.decision.layout.nodes(self.silicon))

    @property
    def pools(self) -> int:
        """CPUs that its vCPUs float over."""
        occupancy = self.decision.occupancy
        return sum(occupancy.pool(self.silicon.cells[cell]).bit_count() for cell in self.decision.layout.by_cell())

    @property
    def crowded(self) -> bool:
        return self.request.policy is CpuPolicy.SHARED and self.request.vcpus > self.pools

    @property
    def remote(self) -> int:
        return self.decision.layout.remote_vcpus(self.silicon)


def reasons(decision: Decision, placement: Placement) -> tuple[str, ...]:
    case = _Case(decision, placement)
    return tuple(
        sentence for tell in (_where, _kind, _near, _cpus, _waiting, _remote, _guest, _pages) for sentence in tell(case)
    )


def next_best(decision: Decision) -> str | None:
    """The second of the choices and the first aspect in which it is worse."""
    if len(decision.choices) < 2:
        return None
    best, second = decision.choices[:2]
    silicon = decision.occupancy.silicon
    place = nodes_in_words(sorted(second.layout.nodes(silicon)))
    if second.kind != best.kind:
        place = f"{silicon.kinds[second.kind].name} CPUs of {place}"
    return f"{place[0].upper()}{place[1:]}: {_worse(*_difference(best, second))}."


def _difference(best: Choice, second: Choice) -> tuple[str, float, float]:
    """The aspect that decided, and how it was with both."""
    return next(
        (aspect, one, other)
        for aspect, one, other in zip(best.aspects, best.key, second.key, strict=True)
        if one != other
    )


def _better(aspect: str) -> str:
    match aspect:
        case "near":
            return ", and is closer to its devices than others that do"
        case "kind":
            return " on the strongest CPUs"
        case "squeezed":
            return ", and leaves the shared VMs there a CPU for each vCPU"
        case "split clusters":
            return " in clusters that fewer other VMs are in"
        case "tight":
            return ", and fits tightest: room for larger VMs stays on the others"
        case "speed":
            return ", and there a vCPU can expect the most of a CPU"
        case "busy":
            return ", and is the least busy that does"
    return "; others would do as well"


def _worse(aspect: str, best: float, second: float) -> str:
    match aspect:
        case "near":
            return f"{second - best:g} farther from its devices"
        case "kind":
            return "slower CPUs"
        case "squeezed":
            return f"{second:g} vCPUs of shared VMs would no longer find a CPU each, here {best:g}"
        case "split clusters":
            return f"it would be in {second:g} clusters with other VMs, here in {best:g}"
        case "tight":
            more = second - best
            are = "CPU is" if more == 1 else "CPUs are"
            return f"{more:g} more {are} free there, which a larger VM may need together"
        case "speed":
            return f"each vCPU could expect {(1 - second / best) * 100:.0f}% less of a CPU"
        case "busy":
            return f"it would be {_percent(second)} full, this is {_percent(best)}"
    return "equally good, and higher in number"


def _percent(share: float) -> str:
    return f"{share * 100:.0f}%" if share >= 0.1 else f"{share * 100:.1f}%"


def _where(case: _Case) -> Iterator[str]:
    nodes, request = case.nodes, case.request
    if len(case.silicon.nodes) == 1:
        yield "The host has one NUMA node."
    elif len(nodes) > 1 and request.guest_nodes:
        yield f"Its {len(request.guest_nodes)} NUMA nodes are on {nodes_in_words(nodes)} of the host."
    elif len(nodes) > 1:
        where = nodes_in_words(nodes)
        chosen = "" if case.crowded or case.remote else ", the fewest and closest that have"
        yield f"No node alone has room for {_wants(request)}: it is on {where}{chosen}."
    elif len(case.decision.choices) < 2:
        yield f"Node {nodes[0]} is the only one that has room for all of it."
    else:
        aspect, _, _ = _difference(*case.decision.choices[:2])
        yield f"Node {nodes[0]} holds all of it{_better(aspect)}."


def _kind(case: _Case) -> Iterator[str]:
    if len(case.silicon.kinds) < 2:
        return
    kind = case.silicon.kinds[next(case.silicon.cells[cell].kind for cell in case.decision.layout.by_cell())]
    if kind.rank == 0:
        yield f"Its CPUs are all {kind.name}, the strongest kind here."
    else:
        yield f"Its CPUs are all {kind.name}: the stronger kinds have no room, or less of a CPU for each vCPU."


def _near(case: _Case) -> Iterator[str]:
    silicon, request, nodes = case.silicon, case.request, case.nodes
    unknown = sorted(request.near - silicon.nodes.keys())
    if unknown:
        yield f"Its devices on {nodes_in_words(unknown)} counted for nothing: the host has no such node."
    wanted = sorted(request.near & silicon.nodes.keys())
    for node in wanted if len(silicon.nodes) > 1 else ():
        if node in nodes:
            yield f"Devices that it is to be near are on node {node}, as it is."
        else:
            nearest = min(nodes, key=lambda one: (silicon.distance(one, node), one))
            yield (
                f"Devices that it is to be near are on node {node}, which has no room for it: "
                f"node {nearest} is at distance {silicon.distance(nearest, node)}."
            )


def _cpus(case: _Case) -> Iterator[str]:
    occupancy, silicon = case.decision.occupancy, case.silicon
    if case.request.policy is CpuPolicy.DEDICATED:
        own = [cpu for cpus in case.placement.vcpus for cpu in cpus]
        yield f"CPUs {format_cpu_list(own)} are its own{_clusters(silicon, own)}."
        if not mask_of(case.placement.emulator_cpus) & ~sum({silicon.core_of[cpu] for cpu in own}):
            yield "QEMU's other threads run on them too: the host has no CPU left for these."
        return
    for cell, count in sorted(case.decision.layout.by_cell().items()):
        pool = occupancy.pool(silicon.cells[cell]).bit_count()
        load = occupancy.load[cell] + count
        cpus = "1 CPU" if pool == 1 else f"{pool} CPUs"
        vcpus = "1 vCPU" if load == 1 else f"{load} vCPUs"
        yield (
            f"Its vCPUs float over {cpus} of node {silicon.cells[cell].node} that other shared VMs may use too: "
            f"{vcpus} there by now, {load / pool:.2g} for each CPU."
        )


def _clusters(silicon: Silicon, own: Sequence[int]) -> str:
    clusters = {silicon.cluster_of[cpu] for cpu in own if cpu in silicon.cluster_of}
    mask = sum(1 << cpu for cpu in own)
    whole = sum(1 for cluster in clusters if cluster & mask == cluster)
    if not clusters or not whole:
        return ""
    if whole == len(clusters):
        return f": {whole} whole cluster{'s' if whole > 1 else ''}"
    return f": {whole} whole cluster{'s' if whole > 1 else ''} and part of {len(clusters) - whole}"


def _waiting(case: _Case) -> Iterator[str]:
    if case.crowded:
        yield (
            f"It has {case.request.vcpus} vCPUs for {case.pools} CPUs: its own vCPUs wait for each other, fewer would "
            "be as fast."
        )


def _remote(case: _Case) -> Iterator[str]:
    if case.remote:
        yield f"{case.remote} of its vCPUs are on another node than their memory: no node has enough of both."


def _guest(case: _Case) -> Iterator[str]:
    if len(case.placement.nodes) > 1 and not case.request.guest_nodes:
        yield f"Its guest sees {len(case.placement.nodes)} NUMA nodes, with the distances of the host's."


def _pages(case: _Case) -> Iterator[str]:
    size = case.request.page_bytes
    if size is not None:
        yield f"Its memory is {case.request.memory_bytes // size} huge pages of {format_bytes(size)}."


def _wants(request: Request) -> str:
    vcpus = f"{request.vcpus} {'dedicated CPU' if request.policy is CpuPolicy.DEDICATED else 'vCPU'}"
    return f"{vcpus}{'s' if request.vcpus > 1 else ''} and {human_bytes(request.memory_bytes)}"


def nodes_in_words(nodes: Sequence[int]) -> str:
    """``node 1``, ``nodes 0-1``."""
    return f"node{'s' if len(nodes) > 1 else ''} {format_cpu_list(nodes)}"
