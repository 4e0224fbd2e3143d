"""What is known of a board: facts, each with the document that says it.

A fact without a source is not known: its value is ``None`` and it says so everywhere (``UNKNOWN``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from enum import StrEnum
from typing import Final, Generic, Never, TypeVar

from carmel.hardware.model import CacheType, FirmwareInterface
from carmel.resources.virtualmachine import GICV2_VCPUS

GICV3_VCPUS: Final = 512
"""vCPUs that Linux's virtual GICv3 takes (include/kvm/arm_vgic.h, VGIC_V3_MAX_CPUS); QEMU's ``virt`` takes as many."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Source:
    """A public document and the place in it: ``where`` is a section, a table, a node or a symbol of a file."""

    title: str
    where: str
    url: str

    def __str__(self) -> str:
        return f"{self.title}, {self.where} ({self.url})"


@dataclass(frozen=True, slots=True)
class Fact(Generic[T_co]):
    """A value and who says so. Known and sourced, or neither: ``ValueError`` otherwise."""

    value: T_co | None
    sources: tuple[Source, ...]

    def __post_init__(self) -> None:
        if (self.value is None) != (not self.sources):
            raise ValueError(f"a fact has a value and a source, or neither: {self.value!r}, {self.sources!r}")


UNKNOWN: Final[Fact[Never]] = Fact(None, ())


def fact(value: T, *sources: Source) -> Fact[T]:
    """A known fact."""
    return Fact(value, sources)


@dataclass(frozen=True, slots=True)
class Midr:
    """How a core names its kind in MIDR_EL1 (Arm ARM, D19.2): implementer and part number."""

    implementer: int
    part: int


@dataclass(frozen=True, slots=True)
class CacheShape:
    """A cache that ``shared_by`` neighbouring cores have together; 1: each core its own."""

    level: int
    type: CacheType
    size_bytes: int
    shared_by: int = 1


@dataclass(frozen=True, slots=True)
class CoreFacts:
    """The cores of one kind in a socket. ``cluster``: cores in each cluster; 1: the cores form none.

    ``capacity`` is relative, 1024 the strongest (Documentation/devicetree/bindings/cpu/cpu-capacity.txt of Linux).
    """

    name: str
    cores: Fact[int]
    midr: Fact[Midr] = UNKNOWN
    cluster: Fact[int] = UNKNOWN
    max_frequency_khz: Fact[int] = UNKNOWN
    capacity: Fact[int] = UNKNOWN
    caches: tuple[Fact[CacheShape], ...] = ()


class DeviceKind(StrEnum):
    NVME = "NVMe"
    NIC = "NIC"
    GPU = "GPU"


@dataclass(frozen=True, slots=True)
class Device:
    """Something on the board, or a place for it. ``tree_node``: its path in the device tree, if it is no PCI device."""

    kind: DeviceKind
    name: str
    socket: int = 0
    count: int = 1
    speed_mbps: int | None = None
    driver: str | None = None
    tree_node: str | None = None


@dataclass(frozen=True, slots=True)
class Recognition:
    """What a machine of this board says of itself: all that is not ``None`` must hold.

    ``compatible``, ``vendor`` and ``product`` are shell patterns on a root ``compatible`` of the device tree, and on
    the DMI words sys_vendor and product_name, compared without case and with single spaces.
    ``cores`` bounds the cores that a socket has online, inclusively: it tells parts in the same board apart.
    """

    source: Source
    compatible: str | None = None
    vendor: str | None = None
    product: str | None = None
    midr: Midr | None = None
    sockets: int | None = None
    cores: tuple[int, int] | None = None
    nodes: int | None = None


@dataclass(frozen=True, slots=True)
class BoardFacts:
    """One board. ``about`` says that it exists under this name and vendor; sizes are bytes."""

    id: str
    name: str
    vendor: str
    about: Source
    architecture: str = "aarch64"
    recognised_by: tuple[Recognition, ...] = ()
    sockets: Fact[int] = UNKNOWN
    nodes_per_socket: Fact[int] = UNKNOWN
    distances: Fact[tuple[tuple[int, ...], ...]] = UNKNOWN
    """Row by row, as ACPI's SLIT and ``/sys/devices/system/node/nodeN/distance`` give them."""
    cores: tuple[CoreFacts, ...] = ()
    """Of a socket, each kind once, in the order in which the kernel numbers them."""
    threads_per_core: Fact[int] = UNKNOWN
    memory_options: Fact[tuple[int, ...]] = UNKNOWN
    memory_maximum: Fact[int] = UNKNOWN
    gic_version: Fact[int] = UNKNOWN
    vhe: Fact[bool] = UNKNOWN
    """Whether Linux itself runs at EL2: world switches are cheaper so."""
    page_sizes: Fact[tuple[int, ...]] = UNKNOWN
    """Base pages of the kernels it runs with, the usual one first."""
    iommu: Fact[str] = UNKNOWN
    pcie: Fact[str] = UNKNOWN
    devices: tuple[Fact[Device], ...] = ()
    firmware: Fact[str] = UNKNOWN
    """Which UEFI there is for it, or what else starts it."""
    interfaces: Fact[tuple[FirmwareInterface, ...]] = UNKNOWN
    """How the firmware can describe the machine to a kernel, its default first."""
    clock: Fact[str] = UNKNOWN
    limit_facts: tuple[Fact[str], ...] = ()
    quirk_facts: tuple[Fact[str], ...] = ()

    @property
    def limits(self) -> tuple[str, ...]:
        """Sentences: what it cannot do, whatever the software."""
        return tuple(one.value for one in self.limit_facts if one.value is not None)

    @property
    def quirks(self) -> tuple[str, ...]:
        """Sentences: what surprises on it, and what to do."""
        return tuple(one.value for one in self.quirk_facts if one.value is not None)

    @property
    def cores_per_socket(self) -> int | None:
        counts = [kind.cores.value for kind in self.cores]
        known = [count for count in counts if count is not None]
        return sum(known) if counts and len(known) == len(counts) else None

    @property
    def nodes(self) -> int | None:
        """NUMA nodes of the whole machine."""
        sockets, nodes = self.sockets.value, self.nodes_per_socket.value
        return None if sockets is None or nodes is None else sockets * nodes

    @property
    def max_vcpus(self) -> int | None:
        """Of one VM under KVM, by its interrupt controller; ``None``: not known, or no GIC."""
        if self.gic_version.value is None:
            return None
        return GICV2_VCPUS if self.gic_version.value == 2 else GICV3_VCPUS

    def facts(self) -> Iterator[tuple[str, Fact[object]]]:
        """Every fact with its name (``cores[0].midr``), unknown ones too."""
        yield from _facts_in("", self)


def _facts_in(path: str, value: object) -> Iterator[tuple[str, Fact[object]]]:
    if isinstance(value, Fact):
        yield path, value
    elif isinstance(value, BoardFacts | CoreFacts):
        for item in dataclass_fields(value):
            yield from _facts_in(f"{path}.{item.name}".removeprefix("."), getattr(value, item.name))
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from _facts_in(f"{path}[{index}]", item)
