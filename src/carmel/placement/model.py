"""The values of placement: what is wanted, what was decided, what could not be.

CPUs and nodes are the host's by the kernel's numbers, vCPUs and guest nodes count from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from carmel.resources.virtualmachine import CpuPolicy


@dataclass(frozen=True, slots=True)
class GuestTopology:
    """Sockets, clusters in each, cores in each, threads of each."""

    sockets: int
    clusters: int
    cores: int
    threads: int

    @property
    def vcpus(self) -> int:
        return self.sockets * self.clusters * self.cores * self.threads


@dataclass(frozen=True, slots=True)
class GuestNodeWish:
    """A NUMA node that the guest is to see (``spec.numa``). ``distances`` go to each guest node, in order."""

    vcpus: tuple[int, ...]
    memory_bytes: int
    distances: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """What one VM asks for. ``page_bytes`` ``None``: the host's ordinary pages, from no pool.

    ``near`` are the host nodes of devices that it is to be close to. ``guest_nodes`` empty: placement decides whether
    the guest sees NUMA; else several of them may share a host node where the host has fewer. ``topology`` ``None``:
    placement chooses one that tells the truth. ``movable``: repair may move it while it runs.
    """

    uid: str
    name: str
    """For people, in reasons: ``default/web``."""
    vcpus: int
    memory_bytes: int
    policy: CpuPolicy = CpuPolicy.SHARED
    page_bytes: int | None = None
    topology: GuestTopology | None = None
    near: frozenset[int] = frozenset()
    guest_nodes: tuple[GuestNodeWish, ...] = ()
    movable: bool = True


@dataclass(frozen=True, slots=True)
class GuestNode:
    """A NUMA node of the guest and the host node that backs it."""

    id: int
    vcpus: tuple[int, ...]
    memory_bytes: int
    host_node: int
    distances: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where one VM is. It keeps its ``request``, so that it can be placed anew.

    ``vcpus[i]`` are the host CPUs that vCPU ``i`` may run on: one and its own for ``Dedicated``, those of its node for
    ``Shared``. ``nodes`` has one entry for a guest that sees no NUMA. ``emulator_cpus`` are for QEMU's other threads.
    """

    request: Request
    vcpus: tuple[tuple[int, ...], ...]
    nodes: tuple[GuestNode, ...]
    topology: GuestTopology
    emulator_cpus: tuple[int, ...]
    reasons: tuple[str, ...] = ()
    """Sentences: why here."""
    next_best: str | None = None
    """A sentence: where else it would have fitted best, and why that is worse."""

    @property
    def memory_nodes(self) -> tuple[int, ...]:
        """Host nodes, ascending."""
        return tuple(sorted({node.host_node for node in self.nodes}))

    @property
    def host_cpus(self) -> tuple[int, ...]:
        """All CPUs that any of its threads may run on, ascending."""
        return tuple(sorted({cpu for cpus in (*self.vcpus, self.emulator_cpus) for cpu in cpus}))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a VM cannot be placed. ``permanent``: no VM that leaves could make room, only another spec or host could.

    ``code`` is one word for a condition's reason: ``TooManyCPUs``, ``InsufficientCPUs``, ``InsufficientMemory``,
    ``InsufficientHugePages``, ``DedicatedCPUsUnavailable``... ``message`` says what is missing, ``hint`` what would
    fit here.
    """

    code: str
    message: str
    hint: str = ""
    permanent: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """How this host is to be used.

    ``reserved_cpus`` and ``reserved_memory`` (bytes by node) are kept for the host itself. ``shared_only_cpus`` are
    never dedicated, shared VMs use them. ``cpu_overcommit``: vCPUs of shared VMs for each host CPU that they may use.
    ``max_vcpus``: of one VM (the GIC's and QEMU's limit). ``no_dedicated``: a sentence, why CPUs cannot be had
    exclusively here; ``None``: they can.
    """

    reserved_cpus: frozenset[int] = frozenset()
    reserved_memory: Mapping[int, int] = field(default_factory=dict)
    cpu_overcommit: float = 16.0
    max_vcpus: int | None = None
    no_dedicated: str | None = None
    shared_only_cpus: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Move:
    """One VM's change of place while it runs. ``bytes`` is the memory that has to be copied between nodes."""

    before: Placement
    after: Placement
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Budget:
    """What one pass of repair may cost."""

    memory_bytes: int
    moves: int
