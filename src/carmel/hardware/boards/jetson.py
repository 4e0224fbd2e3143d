"""NVIDIA Jetson: AGX Xavier, Xavier NX, AGX Orin."""

from __future__ import annotations

from typing import Final

from carmel.hardware.boards.facts import (
    BoardFacts,
    CacheShape,
    CoreFacts,
    Device,
    DeviceKind,
    Midr,
    Recognition,
    Source,
    fact,
)
from carmel.hardware.boards.sources import linux, midr_source
from carmel.hardware.model import CacheType, FirmwareInterface
from carmel.units import KIB, MIB

CARMEL: Final = Midr(0x4E, 0x004)
CORTEX_A78AE: Final = Midr(0x41, 0xD42)

_DTS = "arch/arm64/boot/dts/nvidia"
_T194 = f"{_DTS}/tegra194.dtsi"
_T234 = f"{_DTS}/tegra234.dtsi"
_T194_CPUS: Final = linux(_T194, "/cpus")
_T194_MAP: Final = linux(_T194, "/cpus/cpu-map")
_T194_GIC: Final = linux(_T194, '/bus@0/interrupt-controller@3881000, compatible "arm,gic-400"')
_T234_CPUS: Final = linux(_T234, "/cpus")
_T234_MAP: Final = linux(_T234, "/cpus/cpu-map")
_T234_GIC: Final = linux(_T234, '/bus@0/interrupt-controller@f400000, compatible "arm,gic-v3"')
_T234_SMMU: Final = linux(_T234, '/bus@0/iommu@10000000, compatible "nvidia,tegra234-smmu", "nvidia,smmu-500"')
_CNP: Final = linux("Documentation/arch/arm64/silicon-errata.rst", "NVIDIA, Carmel Core, NVIDIA_CARMEL_CNP_ERRATUM")
_VGIC: Final = linux("include/kvm/arm_vgic.h", "VGIC_V2_MAX_CPUS")

_GICV2_LIMIT: Final = fact("Its interrupt controller is a GICv2: a VM can have 8 vCPUs at most.", _T194_GIC, _VGIC)
_CNP_QUIRK: Final = fact(
    "Linux does not use the shared translations (CNP) of Carmel cores, because of an erratum: an older kernel without "
    "that work-around should not be run.",
    _CNP,
)
_PAIRS: Final = fact(
    "Cores come in pairs that share a 2 MB L2 cache: two busy VMs disturb each other least in different pairs.",
    _T194_CPUS,
)


def _carmel(cores: int, *sources: Source) -> CoreFacts:
    return CoreFacts(
        name="NVIDIA Carmel",
        cores=fact(cores, *sources),
        midr=fact(CARMEL, midr_source("NVIDIA_CPU_PART_CARMEL")),
        cluster=fact(2, _T194_MAP),
        caches=(
            fact(CacheShape(1, CacheType.DATA, 64 * KIB), _T194_CPUS),
            fact(CacheShape(1, CacheType.INSTRUCTION, 128 * KIB), _T194_CPUS),
            fact(CacheShape(2, CacheType.UNIFIED, 2 * MIB, shared_by=2), _T194_CPUS),
            fact(CacheShape(3, CacheType.UNIFIED, 4 * MIB, shared_by=cores), _T194_CPUS),
        ),
    )


_XAVIER_NIC: Final = fact(
    Device(DeviceKind.NIC, "Gigabit Ethernet", speed_mbps=1000, tree_node="/bus@0/ethernet@2490000"),
    linux(f"{_DTS}/tegra194-p2888.dtsi", "/bus@0/ethernet@2490000"),
)
_XAVIER_GPU: Final = fact(
    Device(DeviceKind.GPU, "Tegra GV11B (Volta)", tree_node="/bus@0/host1x@13e00000/gpu@17000000"),
    linux(_T194, '/bus@0/gpu@17000000, compatible "nvidia,gv11b"'),
)

AGX_XAVIER: Final = BoardFacts(
    id="jetson-agx-xavier",
    name="NVIDIA Jetson AGX Xavier",
    vendor="NVIDIA",
    about=linux(f"{_DTS}/tegra194-p2888.dtsi", "/: compatible and model"),
    recognised_by=(
        Recognition(linux(f"{_DTS}/tegra194-p2972-0000.dts", "/: compatible"), compatible="nvidia,p2972-*"),
        Recognition(linux(f"{_DTS}/tegra194-p2888.dtsi", "/: compatible"), compatible="nvidia,p2888*"),
    ),
    sockets=fact(1, _T194_MAP),
    nodes_per_socket=fact(1, _T194_CPUS),
    cores=(_carmel(8, _T194_CPUS),),
    threads_per_core=fact(1, _T194_MAP),
    gic_version=fact(2, _T194_GIC),
    devices=(_XAVIER_NIC, _XAVIER_GPU),
    interfaces=fact((FirmwareInterface.DEVICE_TREE,), linux(f"{_DTS}/tegra194-p2972-0000.dts", "/")),
    clock=fact("in the chip and in its power controller", linux(f"{_DTS}/tegra194-p2888.dtsi", "/bus@0/rtc@c2a0000")),
    limit_facts=(_GICV2_LIMIT,),
    quirk_facts=(_PAIRS, _CNP_QUIRK),
)

BOARDS: Final = (AGX_XAVIER,)
