"""Ampere Altra and Altra Max: Mt. Jade, and boards with one socket."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from carmel.hardware.boards.facts import (
    UNKNOWN,
    BoardFacts,
    CacheShape,
    CoreFacts,
    Device,
    DeviceKind,
    Fact,
    Midr,
    Recognition,
    Source,
    fact,
)
from carmel.hardware.boards.sources import csit, edk2, midr_source
from carmel.hardware.model import CacheType, FirmwareInterface
from carmel.units import KIB, MIB, TIB

NEOVERSE_N1: Final = Midr(0x41, 0xD0C)

_JADE = "Platform/Ampere/JadePkg"
_LSCPU: Final = csit(
    "docs/content/infrastructure/testbed_configuration/ami_alt_hw_bios_cfg.md", "Linux lscpu, of a Mt. Jade"
)
_DMIDECODE: Final = csit(
    "docs/content/infrastructure/testbed_configuration/ami_alt_hw_bios_cfg.md", "Linux dmidecode, of a Mt. Jade"
)
_BOOK: Final = Source(
    "The LinuxBoot Book",
    "LinuxBoot on Ampere Mt. Jade Platform",
    "https://book.linuxboot.org/case_studies/Ampere_study.html",
)
_SLIT: Final = edk2(f"{_JADE}/Drivers/AcpiPlatformDxe/AcpiSlit.c", "ComputeSlitDistance")
_PPTT: Final = edk2(f"{_JADE}/Drivers/AcpiPlatformDxe/AcpiPptt.c", "AcpiInstallPpttTable")
_IORT: Final = edk2(f"{_JADE}/Drivers/AcpiPlatformDxe/AcpiIort.c", "mSmmuNodeTemplate")
_CLUSTER_PAIRS: Final = Source(
    "Linux stable mailing list, Darren Hart of Ampere, 2022",
    "Ampere Altra defines CPU clusters in the ACPI PPTT: cpu_clustergroup_mask() has weight 2",
    "https://lore.kernel.org/stable/?q=%22Ampere+Altra+defines+CPU+clusters%22",
)
_CPULIB: Final = edk2(
    "Silicon/Ampere/AmpereAltraPkg/Include/Library/AmpereCpuLib.h", "SUBNUMA_MODE_* and *_NUM_OF_REGION"
)
_AC01: Final = edk2("Silicon/Ampere/AmpereAltraPkg/Include/Platform/Ac01.h", "MAX_AMPERE_ALTRA_CORES and following")
_GICR: Final = edk2(
    "Silicon/Ampere/AmpereAltraPkg/Include/Platform/Ac01.h",
    "AC01_GICR_*: redistributors, which a GIC has from version 3 on",
)
_SLOTS: Final = edk2(f"{_JADE}/Jade.dsc", "PcdPcieHotPlugPortMapTable, Mt. Jade 2U")
_SLOT_TYPES: Final = edk2(f"{_JADE}/Drivers/SmbiosPlatformDxe/Type09/PlatformSystemSlotData.c", "SMBIOS type 9")
_MEMORY_ARRAYS: Final = edk2(
    f"{_JADE}/Drivers/SmbiosPlatformDxe/Type16/PlatformPhysicalMemoryArrayFunction.c", "one array for each socket"
)
_RTC: Final = edk2(f"{_JADE}/Jade.dsc", "RealTimeClockLib")
_BOOT_LOG: Final = Source(
    "Ampere's LTS kernel, issue 40",
    "boot log of a machine with 160 CPUs",
    "https://github.com/AmpereComputing/ampere-lts-kernel---DEPRECATED/issues/40",
)


def slit(sockets: int, nodes: int) -> tuple[tuple[int, ...], ...]:
    """The distances that the firmware of Mt. Jade gives (AcpiSlit.c): ``nodes`` to a socket lie in a square, two in a
    row, each step costs 1; between sockets it is 20, and 1 more at each end for the row away from the links."""

    def distance(one: int, other: int) -> int:
        a, b = one % nodes, other % nodes
        if one // nodes == other // nodes:
            return 10 + abs(a % 2 - b % 2) + abs(a // 2 - b // 2)
        return 20 + a // 2 + b // 2

    count = range(sockets * nodes)
    return tuple(tuple(distance(one, other) for other in count) for one in count)


def _altra_cores(count: int, max_frequency_khz: Fact[int]) -> CoreFacts:
    return CoreFacts(
        name="Neoverse-N1",
        cores=fact(count, _AC01),
        midr=fact(NEOVERSE_N1, midr_source("ARM_CPU_PART_NEOVERSE_N1"), _BOOT_LOG),
        cluster=fact(2, _CLUSTER_PAIRS, _PPTT),
        max_frequency_khz=max_frequency_khz,
        caches=(
            fact(CacheShape(1, CacheType.DATA, 64 * KIB), _LSCPU),
            fact(CacheShape(1, CacheType.INSTRUCTION, 64 * KIB), _LSCPU),
            fact(CacheShape(2, CacheType.UNIFIED, MIB), _LSCPU),
        ),
    )


_SMMU: Final = fact("SMMUv3, one for each PCIe root complex", _IORT)
_LIMITS: Final = (
    fact("It has no SMT: a core is one CPU, and a dedicated vCPU has a core for itself.", _LSCPU),
    fact("Altra has at most 80 cores in a socket, Altra Max 128; parts with fewer exist.", _AC01),
)
_CLUSTERS: Final = fact(
    "Its clusters are pairs of cores that share a snoop control unit but no cache: a core's caches are all its own.",
    _CLUSTER_PAIRS,
    _LSCPU,
)
_SLC: Final = fact(
    "Linux sees no L3 cache unless the firmware's setting that shows the system-level cache as L3 is on; it is then "
    "32 MB on Altra and 16 MB on Altra Max.",
    _PPTT,
)
_BAYS: Final = fact(
    "Two thirds of the NVMe bays (SSD8 to SSD23) hang on the second socket: `carmel host` shows which drive is where.",
    _SLOTS,
)

_JADE_WORDS: Final = Recognition(_DMIDECODE, vendor="wiwynn", product="mt.jade*", midr=NEOVERSE_N1, sockets=2)
_ALTRA: Final = (1, 80)
_ALTRA_MAX: Final = (81, 128)


def _mt_jade(board_id: str, name: str, cores: int, online: tuple[int, int], frequency: Fact[int]) -> BoardFacts:
    return BoardFacts(
        id=board_id,
        name=f"Ampere Mt. Jade, {name}",
        vendor="WIWYNN",
        about=_DMIDECODE,
        recognised_by=(replace(_JADE_WORDS, cores=online),),
        sockets=fact(2, _LSCPU),
        nodes_per_socket=fact(1, _LSCPU, _CPULIB),
        distances=fact(slit(2, 1), _SLIT),
        cores=(_altra_cores(cores, frequency),),
        threads_per_core=fact(1, _LSCPU),
        memory_maximum=fact(8 * TIB, _DMIDECODE, _MEMORY_ARRAYS),
        gic_version=fact(3, _GICR, _BOOT_LOG),
        iommu=_SMMU,
        pcie=fact("PCIe 4.0; slots of 4, 8 and 16 lanes", _SLOT_TYPES),
        devices=(
            fact(Device(DeviceKind.NVME, "front bays SSD0 to SSD7", socket=0, count=8), _SLOTS),
            fact(Device(DeviceKind.NVME, "front bays SSD8 to SSD23", socket=1, count=16), _SLOTS),
        ),
        firmware=fact("UEFI of edk2-platforms (JadePkg); LinuxBoot as another choice", _BOOK),
        interfaces=fact((FirmwareInterface.ACPI,), _DMIDECODE),
        clock=fact("PCF85063 real-time clock", _RTC),
        limit_facts=_LIMITS,
        quirk_facts=(_CLUSTERS, _SLC, _BAYS),
    )


def _in_mode(board: BoardFacts, mode: str, nodes: int) -> BoardFacts:
    """The same board with its firmware's setting for NUMA nodes within a socket changed (ANC)."""
    note = f"Its firmware is set to {mode} mode: {nodes} NUMA nodes in each socket instead of one."
    return replace(
        board,
        id=f"{board.id}-{mode}",
        name=f"{board.name}, {mode} mode",
        recognised_by=tuple(replace(one, nodes=2 * nodes) for one in board.recognised_by),
        nodes_per_socket=fact(nodes, _CPULIB),
        distances=fact(slit(2, nodes), _SLIT),
        quirk_facts=(fact(note, _CPULIB), *board.quirk_facts),
    )


_ONE_SOCKET: Final = Source(
    "Core-to-core latency, issue 49",
    "lscpu of a server with one Altra Q80-30",
    "https://github.com/nviennot/core-to-core-latency/issues/49",
)
_DEV_PLATFORM: Final = Source(
    "SBC reviews, issue 19: Ampere Altra Developer Platform",
    "Linux/system information",
    "https://github.com/geerlingguy/sbc-reviews/issues/19",
)
_LSHW: Final = Source(
    "lshw of a GIGABYTE R152-P31",
    "results/lshw-rose.out",
    "https://git.zelkova-c.xyz/zc/unnamed_ba_thesis/commit/6111e79686ef34644cf58d08a50bceff41f88ac3",
)
_ALTRAD8UD: Final = Source(
    "Linux Hardware Database", "an ASRockRack ALTRAD8UD-1L2T", "https://linux-hardware.org/?probe=bc61f95204"
)


def _one_socket(
    board_id: str, name: str, cores: int, about: Source, frequency: Fact[int], *recognised_by: Recognition
) -> BoardFacts:
    return BoardFacts(
        id=board_id,
        name=name,
        vendor="Ampere",
        about=about,
        recognised_by=recognised_by,
        sockets=fact(1, about),
        nodes_per_socket=fact(1, _ONE_SOCKET, _CPULIB),
        cores=(_altra_cores(cores, frequency),),
        threads_per_core=fact(1, _ONE_SOCKET),
        memory_maximum=fact(4 * TIB, _LSHW),
        gic_version=fact(3, _GICR),
        iommu=_SMMU,
        interfaces=fact((FirmwareInterface.ACPI,), _LSHW),
        firmware=fact("UEFI of the board's vendor", _LSHW),
        limit_facts=_LIMITS,
        quirk_facts=(
            _CLUSTERS,
            _SLC,
            fact("Its firmware can show the one socket as two or four NUMA nodes (ANC).", _ONE_SOCKET, _CPULIB),
        ),
    )


def _altra_1p(source: Source, vendor: str, product: str, cores: tuple[int, int]) -> Recognition:
    return Recognition(source, vendor=vendor, product=product, midr=NEOVERSE_N1, sockets=1, cores=cores)


_PLAIN: Final = (
    _mt_jade("mt-jade-altra", "2 x Altra", 80, _ALTRA, fact(3_000_000, _LSCPU)),
    _mt_jade("mt-jade-altra-max", "2 x Altra Max", 128, _ALTRA_MAX, UNKNOWN),
)

BOARDS: Final = (
    *(
        variant
        for board in _PLAIN
        for variant in (board, _in_mode(board, "hemisphere", 2), _in_mode(board, "quadrant", 4))
    ),
    _one_socket(
        "altra-one-socket",
        "Server with one Ampere Altra",
        80,
        _ONE_SOCKET,
        fact(3_000_000, _ONE_SOCKET),
        _altra_1p(_LSHW, "gigabyte*", "r152-p3*", _ALTRA),
        _altra_1p(_ALTRAD8UD, "asrockrack*", "altrad8ud*", _ALTRA),
        _altra_1p(_DEV_PLATFORM, "*", "ampere altra developer platform*", _ALTRA),
    ),
    _one_socket(
        "altra-max-one-socket",
        "Server or workstation with one Ampere Altra Max",
        128,
        _DEV_PLATFORM,
        UNKNOWN,
        _altra_1p(_LSHW, "gigabyte*", "r152-p3*", _ALTRA_MAX),
        _altra_1p(_ALTRAD8UD, "asrockrack*", "altrad8ud*", _ALTRA_MAX),
        _altra_1p(_DEV_PLATFORM, "*", "ampere altra developer platform*", _ALTRA_MAX),
    ),
)
