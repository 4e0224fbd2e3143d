"""What the picture of a machine shows, put in order: which CPUs, memory, VMs and devices are at which node and socket.

Nothing is drawn here, and nothing here is fetched: a host's ``status.hardware`` and its VMs in, a ``Scene`` out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import count
from string import ascii_lowercase, ascii_uppercase

from carmel.cli.picture_devices import Device, devices_of
from carmel.cpulist import parse_cpu_list
from carmel.resources.host_hardware import HardwareStatus, NumaNodeStatus, SocketStatus

LETTERS = ascii_uppercase + ascii_lowercase
NO_LETTER = "*"
"""Of the VMs after the fifty-second."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """A VM on the machine. ``vcpus`` are the host CPUs that each vCPU may run on, ``memory`` is in bytes by host node,
    of ``page_bytes`` pages. ``letter`` is given by ``arrange``."""

    name: str
    dedicated: bool
    vcpus: tuple[tuple[int, ...], ...]
    memory: Mapping[int, int]
    page_bytes: int | None = None
    letter: str = NO_LETTER

    @property
    def memory_bytes(self) -> int:
        return sum(self.memory.values())


@dataclass(frozen=True, slots=True)
class Use:
    """How the host is used beside its VMs. ``free`` are the CPUs that nobody has for himself, ``None`` where that is
    not told; ``unplaced`` are VMs that run and of which no place is known."""

    reserved: frozenset[int] = frozenset()
    free: frozenset[int] | None = None
    unplaced: tuple[str, ...] = ()


class Mark(StrEnum):
    """What a CPU is used for."""

    FREE = "free"
    SHARED = "shared"
    RESERVED = "reserved"
    DEDICATED = "dedicated"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Cell:
    """One CPU. ``letter`` is its VM's where it is dedicated."""

    cpu: int
    mark: Mark
    letter: str = ""


@dataclass(frozen=True, slots=True)
class Cores:
    """CPUs of one kind, cluster by cluster; one group where the kernel knows no clusters."""

    kind: str
    groups: tuple[tuple[Cell, ...], ...]

    @property
    def cells(self) -> tuple[Cell, ...]:
        return tuple(cell for group in self.groups for cell in group)


@dataclass(frozen=True, slots=True)
class Pool:
    """Memory of one page size: ordinary memory where ``page_bytes`` is ``None``."""

    total_bytes: int
    used_bytes: int
    page_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Guest:
    """A VM's part in one node."""

    tenant: Tenant
    vcpus: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Part:
    """A node, or the part of it that is in one socket. ``node`` ``None``: nowhere in particular."""

    node: int | None
    cores: tuple[Cores, ...] = ()
    pools: tuple[Pool, ...] = ()
    guests: tuple[Guest, ...] = ()
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True, slots=True)
class Box:
    """A socket with its nodes, or what is in no socket (``socket`` ``None``)."""

    socket: SocketStatus | None
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """``kinds`` are the names of the CPU kinds, ``distances`` go from node to node where there are several."""

    boxes: tuple[Box, ...]
    kinds: tuple[str, ...]
    several_nodes: bool
    distances: Mapping[int, Mapping[int, int]] = field(default_factory=dict)
    offline: str = ""
    floating: tuple[Tenant, ...] = ()
    """VMs that no node holds: their vCPUs may run on CPUs of several."""
    unplaced: tuple[str, ...] = ()


def arrange(hardware: HardwareStatus, tenants: Sequence[Tenant], use: Use) -> Scene:
    """Raises ``ValueError`` for a list of CPUs that is none."""
    return _Arrangement(hardware, tenants, use).scene()


@dataclass(frozen=True, slots=True)
class _Seat:
    """How many vCPUs of a VM are held to each node; it ``floats`` when one of them may run on several."""

    tenant: Tenant
    vcpus: Mapping[int, int]
    floats: bool


class _Arrangement:
    """What is looked up again and again while a scene is put together."""

    def __init__(self, hardware: HardwareStatus, tenants: Sequence[Tenant], use: Use) -> None:
        self._hardware = hardware
        self._use = use
        self._tenants = _lettered(tenants)
        self._node_of = {cpu: node.id for node in hardware.numa_nodes for cpu in parse_cpu_list(node.cpus)}
        self._kind_of = {
            cpu: index for index, kind in enumerate(hardware.cpu_kinds) for cpu in parse_cpu_list(kind.cpus)
        }
        self._cluster_of = _index(hardware.clusters)
        self._core_of = _index(hardware.cores)
        self._dedicated = {
            cpu: tenant.letter for tenant in self._tenants if tenant.dedicated for cpus in tenant.vcpus for cpu in cpus
        }
        self._shared = {
            cpu for tenant in self._tenants if not tenant.dedicated for cpus in set(tenant.vcpus) for cpu in cpus
        }
        self._seats = [self._seat(tenant) for tenant in self._tenants]
        self._devices = devices_of(hardware)

    def scene(self) -> Scene:
        nodes = self._hardware.numa_nodes
        boxes = [self._socket(socket) for socket in self._hardware.sockets]
        elsewhere = [self._part(node, ()) for node in nodes if not self._sockets_with(node)]
        elsewhere += [self._whole(node) for node in nodes if len(self._sockets_with(node)) > 1]
        if lost := self._devices_nowhere():
            elsewhere.append(Part(None, devices=lost))
        if elsewhere:
            boxes.append(Box(None, tuple(elsewhere)))
        several = len(nodes) > 1
        return Scene(
            boxes=tuple(boxes),
            kinds=tuple(kind.name for kind in self._hardware.cpu_kinds),
            several_nodes=several,
            distances=_distances(nodes) if several else {},
            offline=self._hardware.offline_cpus or "",
            floating=tuple(seat.tenant for seat in self._seats if seat.floats),
            unplaced=self._use.unplaced,
        )

    def _socket(self, socket: SocketStatus) -> Box:
        """Its nodes; of one that reaches into other sockets only its CPUs here: the rest is told once, elsewhere."""
        cpus = parse_cpu_list(socket.cpus)
        parts = []
        for node in self._hardware.numa_nodes:
            here = tuple(cpu for cpu in cpus if self._node_of.get(cpu) == node.id)
            if here and len(self._sockets_with(node)) > 1:
                parts.append(Part(node.id, cores=self._cores(here)))
            elif here:
                parts.append(self._part(node, here))
        if homeless := tuple(cpu for cpu in cpus if cpu not in self._node_of):
            parts.append(Part(None, cores=self._cores(homeless)))
        return Box(socket, tuple(parts))

    def _part(self, node: NumaNodeStatus, cpus: tuple[int, ...]) -> Part:
        whole = self._whole(node)
        return replace(whole, cores=self._cores(cpus))

    def _whole(self, node: NumaNodeStatus) -> Part:
        """A node without its CPUs."""
        guests = (
            Guest(seat.tenant, seat.vcpus.get(node.id, 0), seat.tenant.memory.get(node.id, 0))
            for seat in self._seats
            if not seat.floats
        )
        alone = len(self._hardware.numa_nodes) == 1
        return Part(
            node.id,
            pools=self._pools(node),
            guests=tuple(guest for guest in guests if guest.vcpus or guest.memory_bytes),
            devices=tuple(one for one in self._devices if one.node == node.id or (alone and one.node is None)),
        )

    def _devices_nowhere(self) -> tuple[Device, ...]:
        known = {node.id for node in self._hardware.numa_nodes}
        return tuple(one for one in self._devices if one.node not in known and (len(known) > 1 or one.node is not None))

    def _sockets_with(self, node: NumaNodeStatus) -> list[int]:
        cpus = set(parse_cpu_list(node.cpus))
        return [socket.id for socket in self._hardware.sockets if cpus.intersection(parse_cpu_list(socket.cpus))]

    def _cores(self, cpus: tuple[int, ...]) -> tuple[Cores, ...]:
        """By kind, then by cluster; the threads of a core beside each other."""
        found: dict[int, dict[int, list[int]]] = {}
        for cpu in sorted(cpus, key=lambda cpu: (self._core_of.get(cpu, cpu), cpu)):
            found.setdefault(self._kind_of.get(cpu, -1), {}).setdefault(self._cluster_of.get(cpu, -1), []).append(cpu)
        kinds = self._hardware.cpu_kinds
        return tuple(
            Cores(
                kinds[kind].name if kind >= 0 else "",
                tuple(tuple(self._cell(cpu) for cpu in group) for group in clusters.values()),
            )
            for kind, clusters in sorted(found.items())
        )

    def _cell(self, cpu: int) -> Cell:
        if cpu in self._dedicated:
            return Cell(cpu, Mark.DEDICATED, self._dedicated[cpu])
        if cpu in self._use.reserved:
            return Cell(cpu, Mark.RESERVED)
        if self._use.free is not None and cpu not in self._use.free:
            return Cell(cpu, Mark.UNKNOWN)
        return Cell(cpu, Mark.SHARED if cpu in self._shared else Mark.FREE)

    def _pools(self, node: NumaNodeStatus) -> tuple[Pool, ...]:
        huge = {pool.size_bytes: pool.size_bytes * pool.total for pool in node.huge_pages or () if pool.total}
        used: Counter[int | None] = Counter()
        for tenant in self._tenants:
            page = tenant.page_bytes if tenant.page_bytes in huge else None
            used[page] += tenant.memory.get(node.id, 0)
        ordinary = Pool(max(0, node.memory_bytes - sum(huge.values())), used[None])
        return (ordinary, *(Pool(total, used[page], page) for page, total in huge.items()))

    def _seat(self, tenant: Tenant) -> _Seat:
        nodes = {cpus: {self._node_of[cpu] for cpu in cpus if cpu in self._node_of} for cpus in set(tenant.vcpus)}
        held = Counter(node for cpus in tenant.vcpus if len(nodes[cpus]) == 1 for node in nodes[cpus])
        return _Seat(tenant, held, floats=any(len(one) > 1 for one in nodes.values()))


def _lettered(tenants: Sequence[Tenant]) -> tuple[Tenant, ...]:
    """Those that are to be found among the cells get their letters first."""
    ordered = sorted(tenants, key=lambda tenant: (not tenant.dedicated, tenant.name))
    letters = (LETTERS[index] if index < len(LETTERS) else NO_LETTER for index in count())
    return tuple(replace(tenant, letter=letter) for tenant, letter in zip(ordered, letters, strict=False))


def _index(groups: Sequence[str] | None) -> dict[int, int]:
    return {cpu: index for index, cpus in enumerate(groups or ()) for cpu in parse_cpu_list(cpus)}


def _distances(nodes: Sequence[NumaNodeStatus]) -> dict[int, dict[int, int]]:
    return {node.id: {int(other): far for other, far in node.distances.items() if other.isdecimal()} for node in nodes}
