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
from carmel.units import GIB, KIB, MIB

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
        name="Carmel",
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
    Device(DeviceKind.GPU, "Tegra GV11B (Volta)", tree_node="/bus@0/gpu@17000000"),
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

_NX_DATA_SHEET: Final = Source(
    "NVIDIA Jetson Xavier NX data sheet, DA-09366-001 v1.3",
    "title of the module",
    "https://www.scribd.com/document/467713153/Jetson-Xavier-NX-Data-Sheet-v1-3",
)
_NX_CORES: Final = Source(
    "Max-N mode for Jetson Xavier NX", "README", "https://github.com/borongyuan/XavierNXOverclock"
)
_NX_DTS: Final = linux(f"{_DTS}/tegra194-p3509-0000+p3668-0000.dts", "/: compatible and model")
_JETSON_GPIO: Final = Source(
    "NVIDIA Jetson.GPIO",
    "lib/python/Jetson/GPIO/gpio_pin_data.py: compats_nx",
    "https://github.com/NVIDIA/jetson-gpio/blob/master/lib/python/Jetson/GPIO/gpio_pin_data.py",
)

XAVIER_NX: Final = BoardFacts(
    id="jetson-xavier-nx",
    name="NVIDIA Jetson Xavier NX",
    vendor="NVIDIA",
    about=_NX_DTS,
    recognised_by=(
        Recognition(_NX_DTS, compatible="nvidia,p3509-*+p3668-*"),
        Recognition(_JETSON_GPIO, compatible="nvidia,p3449-*+p3668-*"),
    ),
    sockets=fact(1, _T194_MAP),
    nodes_per_socket=fact(1, _T194_CPUS),
    cores=(_carmel(6, _NX_CORES),),
    threads_per_core=fact(1, _T194_MAP),
    memory_options=fact((8 * GIB,), _NX_DATA_SHEET),
    gic_version=fact(2, _T194_GIC),
    devices=(
        fact(
            Device(DeviceKind.NIC, "Gigabit Ethernet", speed_mbps=1000, tree_node="/bus@0/ethernet@2490000"),
            linux(f"{_DTS}/tegra194-p3668.dtsi", "/bus@0/ethernet@2490000"),
            _NX_DATA_SHEET,
        ),
        _XAVIER_GPU,
    ),
    interfaces=fact((FirmwareInterface.DEVICE_TREE,), _NX_DTS),
    clock=fact("in the chip and in its power controller", linux(f"{_DTS}/tegra194-p3668.dtsi", "aliases rtc0, rtc1")),
    limit_facts=(_GICV2_LIMIT,),
    quirk_facts=(
        fact("Power modes (nvpmodel) may leave fewer than its six cores online.", _NX_CORES),
        _PAIRS,
        _CNP_QUIRK,
    ),
)

_ORIN_LSCPU: Final = Source(
    "VAMP, issue 20", "lscpu of a Jetson Orin with 12 cores", "https://github.com/KavrakiLab/vamp/issues/20"
)
_ORIN_NANO_LOG: Final = Source(
    "vc_mipi_nvidia, issue 58",
    "boot log of an Orin Nano, of the same chip family: detected: Virtualization Host Extensions",
    "https://github.com/VC-MIPI-modules/vc_mipi_nvidia/issues/58",
)
_ORIN_GIC_BUG: Final = Source(
    "OE4T linux-tegra-5.10, pull request 7",
    "nvidia: dts: fix interrupts declaration for GICv3",
    "https://github.com/OE4T/linux-tegra-5.10/pull/7",
)
_ORIN_DTS: Final = linux(f"{_DTS}/tegra234-p3701-0000.dtsi", "/: compatible and model")

AGX_ORIN: Final = BoardFacts(
    id="jetson-agx-orin",
    name="NVIDIA Jetson AGX Orin",
    vendor="NVIDIA",
    about=_ORIN_DTS,
    recognised_by=(
        Recognition(_ORIN_DTS, compatible="nvidia,p3701-*"),
        Recognition(
            linux(f"{_DTS}/tegra234-p3737-0000+p3701-0000.dts", "file name"), compatible="nvidia,p3737-*+p3701-*"
        ),
    ),
    sockets=fact(1, _T234_MAP),
    nodes_per_socket=fact(1, _T234_CPUS),
    cores=(
        CoreFacts(
            name="Cortex-A78AE",
            cores=fact(12, _T234_MAP, _ORIN_LSCPU),
            midr=fact(CORTEX_A78AE, _ORIN_LSCPU, midr_source("ARM_CPU_PART_CORTEX_A78AE")),
            cluster=fact(4, _T234_MAP, _ORIN_LSCPU),
            max_frequency_khz=fact(2_201_600, _ORIN_LSCPU),
            caches=(
                fact(CacheShape(1, CacheType.DATA, 64 * KIB), _T234_CPUS),
                fact(CacheShape(1, CacheType.INSTRUCTION, 64 * KIB), _T234_CPUS),
                fact(CacheShape(2, CacheType.UNIFIED, 256 * KIB), _T234_CPUS),
                fact(CacheShape(3, CacheType.UNIFIED, 2 * MIB, shared_by=4), _T234_CPUS),
            ),
        ),
    ),
    threads_per_core=fact(1, _T234_MAP),
    gic_version=fact(3, _T234_GIC),
    vhe=fact(True, _ORIN_NANO_LOG),
    iommu=fact("NVIDIA SMMU-500", _T234_SMMU),
    devices=(
        fact(
            Device(DeviceKind.GPU, "Tegra GA10B (Ampere)", tree_node="/gpu@17000000"),
            linux(_T234, '/gpu@17000000, compatible "nvidia,ga10b"'),
        ),
    ),
    interfaces=fact((FirmwareInterface.DEVICE_TREE,), _ORIN_DTS),
    clock=fact("in the chip", linux(f"{_DTS}/tegra234-p3701-0000.dtsi", "/bus@0/rtc@c2a0000")),
    quirk_facts=(
        fact(
            "Modules with 8 cores exist beside those with 12: what is online counts.",
            Source("TVM, pull request 16231", "description", "https://github.com/apache/tvm/pull/16231"),
        ),
        fact(
            "NVIDIA's kernel 5.10 (JetPack 5.0 and 5.1) lacks an interrupt in its device tree: KVM cannot make a GICv3 "
            "there, and no VM starts until the device tree is mended.",
            _ORIN_GIC_BUG,
        ),
        fact("Each cluster of four cores has an L3 cache of its own: a VM of up to 4 vCPUs fits one.", _T234_CPUS),
    ),
)

BOARDS: Final = (AGX_XAVIER, XAVIER_NX, AGX_ORIN)
