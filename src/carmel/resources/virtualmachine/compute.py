"""vCPUs and memory of a VM, the NUMA that its guest sees, and wishes for its place on the host."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from carmel.cpulist import parse_cpu_list
from carmel.resources.base import Model, Size
from carmel.units import KIB, MIB, TIB, parse_bytes

MAX_VCPUS = 512
"""QEMU's ``virt`` machine: at most 512 CPUs with a GICv3 (hw/arm/virt.c, ``max_cpus``)."""
MIN_MEMORY = 16 * MIB
MAX_MEMORY = 255 * TIB
MAX_NUMA_NODES = 128
"""QEMU's ``MAX_NODES`` (include/sysemu/numa.h)."""


LARGEST_PAGE = 16 * 1024**3
"""The largest huge page there is on Arm: 16 GiB, of kernels with pages of 64 KiB (Linux, hugetlbpage.rst)."""

DeviceName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9:._-]*$")]
CpuList = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class CpuPolicy(StrEnum):
    """``Shared`` vCPUs float over the host CPUs of their node, which other VMs use too. ``Dedicated`` ones have a host
    CPU each, and nobody else has it."""

    SHARED = "Shared"
    DEDICATED = "Dedicated"


class Rebalance(StrEnum):
    """Whether a running VM may be moved to other CPUs and memory of its host to make things better."""

    ALLOW = "Allow"
    NEVER = "Never"


class CpuTopology(Model):
    """The guest's sockets, clusters, cores and threads. Their product is ``cpu.count``."""

    sockets: int = Field(default=1, ge=1, le=MAX_VCPUS, description="CPU packages.")
    clusters: int = Field(default=1, ge=1, le=MAX_VCPUS, description="Clusters in each socket.")
    cores: int = Field(default=1, ge=1, le=MAX_VCPUS, description="Cores in each cluster.")
    threads: int = Field(default=1, ge=1, le=MAX_VCPUS, description="Threads of each core.")


class Cpu(Model):
    """vCPUs. ``model`` is a QEMU CPU model; by default the host's own under KVM, a fast one when emulated."""

    count: int = Field(default=1, ge=1, le=MAX_VCPUS, description="How many vCPUs.")
    model: str | None = Field(
        default=None,
        max_length=63,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="QEMU's name of a CPU model, such as cortex-a72 or neoverse-n1. Only when emulated.",
    )
    topology: CpuTopology | None = Field(
        default=None, description="What the guest sees; chosen after the host's silicon when absent."
    )
    policy: CpuPolicy = Field(
        default=CpuPolicy.SHARED,
        description="Shared: vCPUs float over CPUs that others use too. Dedicated: a host CPU for each vCPU alone.",
    )
    nested_virtualization: bool = Field(
        default=False, description="Let the guest run VMs of its own (Arm: EL2). Emulated, or where KVM can nest."
    )
    gic_version: Literal[2, 3] | None = Field(
        default=None,
        description="Arm: the interrupt controller, only when emulated. 2 takes at most 8 vCPUs, as on small boards.",
    )


class Memory(Model):
    """Guest memory."""

    size: Size = Field(default="1Gi", description="How much, such as 512Mi or 2Gi. A whole number of MiB.")
    page_size: Size | None = Field(
        default=None, description="Back it with the host's huge pages of this size, such as 2Mi or 1Gi."
    )

    @field_validator("size")
    @classmethod
    def _in_range(cls, value: str) -> str:
        size = parse_bytes(value)
        if size < MIN_MEMORY or size > MAX_MEMORY:
            raise ValueError(f"must be between {MIN_MEMORY // MIB}Mi and {MAX_MEMORY // TIB}Ti")
        if size % MIB:
            raise ValueError("must be a whole number of MiB")
        return value

    @field_validator("page_size")
    @classmethod
    def _a_page(cls, value: str | None) -> str | None:
        if value is not None:
            size = parse_bytes(value)
            if size & (size - 1) or not 64 * KIB <= size <= LARGEST_PAGE:
                raise ValueError("must be a size of huge pages: a power of two from 64Ki to 16Gi, such as 2Mi or 1Gi")
        return value


class NumaNode(Model):
    """A NUMA node that the guest sees."""

    cpus: CpuList = Field(description="Its vCPUs, such as 0-3 or 0,2.")
    memory: Size = Field(description="Its share of spec.memory.size.")
    distances: list[Annotated[int, Field(ge=10, le=254)]] | None = Field(
        default=None,
        max_length=MAX_NUMA_NODES,
        description="To each node, in order; 10 is itself. 20 to the others when absent.",
    )

    @field_validator("cpus")
    @classmethod
    def _a_list(cls, value: str) -> str:
        parse_cpu_list(value)
        return value

    @field_validator("memory")
    @classmethod
    def _whole(cls, value: str) -> str:
        size = parse_bytes(value)
        if not size or size % MIB:
            raise ValueError("must be a whole number of MiB, and not 0")
        return value


class Numa(Model):
    """NUMA of the guest's own, whatever the host's is. Without it a VM that fits one node of the host sees none, and a
    wider one sees nodes that mirror the host's."""

    nodes: list[NumaNode] = Field(min_length=1, max_length=MAX_NUMA_NODES, description="In order, from node 0.")


class PlacementWishes(Model):
    """Wishes for the place on the host."""

    near: list[DeviceName] | None = Field(
        default=None,
        max_length=16,
        description="Devices of the host that the VM is to share a NUMA node with: 0000:01:00.0, nvme0, eth0.",
    )
    rebalance: Rebalance | None = Field(
        default=None,
        description="May it be moved on its host while it runs? Allow for Shared, Never for Dedicated when absent.",
    )
