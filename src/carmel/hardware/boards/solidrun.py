"""SolidRun HoneyComb LX2K: a Mini-ITX board with NXP LX2160A."""

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

CORTEX_A72: Final = Midr(0x41, 0xD08)

_DTS = "arch/arm64/boot/dts/freescale"
_CPUS: Final = linux(f"{_DTS}/fsl-lx2160a.dtsi", "/cpus")
_GIC: Final = linux(f"{_DTS}/fsl-lx2160a.dtsi", '/interrupt-controller@6000000, compatible "arm,gic-v3"')
_BOARD: Final = linux(f"{_DTS}/fsl-lx2160a-honeycomb.dts", "/: compatible and model")
_GUIDE: Final = Source("LX2K Guide", "Specifications", "https://github.com/Wooty-B/LX2K_Guide")
_UEFI_LOG: Final = Source(
    "Linux, commit 37dcc673d065",
    "message: Hardware name: SolidRun Ltd. SolidRun CEX7 Platform, BIOS EDK II; 4k pages",
    "https://git.kernel.org/torvalds/c/37dcc673d065d9823576cd9f2484a72531e1cba6",
)
_ACPI_VIEW: Final = Source(
    "acpiview of an LX2160A CEX7",
    "XSDT",
    "https://gist.github.com/agrajag9/d60be44d84a3148043d87a64f8af5652",
)
_BOOT_LOG: Final = Source("Boot log of an LX2160A CEX7", "Clock Configuration", "https://pastebin.com/HhXvutEa")

_KVM_PATCH: Final = Source(
    "Linux ARM kernel mailing list, 'arm64: kvm: fix IDMAP overlap with HYP VA'",
    "message: kvm lines of an LX2160A with Linux 5.4, before and after",
    "https://lore.kernel.org/all/E1iko5f-0000z2-Tx@rmk-PC.armlinux.org.uk/",
)

HONEYCOMB: Final = BoardFacts(
    id="honeycomb-lx2k",
    name="SolidRun HoneyComb LX2K",
    vendor="SolidRun",
    about=_BOARD,
    recognised_by=(
        Recognition(_BOARD, compatible="solidrun,honeycomb"),
        Recognition(_UEFI_LOG, vendor="solidrun*", product="solidrun cex7 platform*", midr=CORTEX_A72),
    ),
    sockets=fact(1, _CPUS),
    nodes_per_socket=fact(1, _CPUS),
    cores=(
        CoreFacts(
            name="Cortex-A72",
            cores=fact(16, _CPUS),
            midr=fact(CORTEX_A72, midr_source("ARM_CPU_PART_CORTEX_A72")),
            cluster=fact(2, _CPUS),
            max_frequency_khz=fact(2_000_000, _BOOT_LOG, _GUIDE),
            caches=(
                fact(CacheShape(1, CacheType.DATA, 32 * KIB), _CPUS),
                fact(CacheShape(1, CacheType.INSTRUCTION, 48 * KIB), _CPUS),
                fact(CacheShape(2, CacheType.UNIFIED, MIB, shared_by=2), _CPUS),
            ),
        ),
    ),
    threads_per_core=fact(1, _CPUS),
    memory_maximum=fact(64 * GIB, _GUIDE),
    gic_version=fact(3, _GIC),
    vhe=fact(False, _KVM_PATCH),
    page_sizes=fact((4 * KIB,), _UEFI_LOG),
    pcie=fact("PCIe 3.0: eight lanes in an open-ended slot, four in the M.2 slot", _GUIDE),
    devices=(
        fact(Device(DeviceKind.NIC, "Gigabit Ethernet", speed_mbps=1000), _GUIDE),
        fact(
            Device(DeviceKind.NIC, "10 Gigabit Ethernet (SFP+)", count=4, speed_mbps=10_000, driver="fsl_dpaa2_eth"),
            _GUIDE,
            _UEFI_LOG,
        ),
        fact(Device(DeviceKind.NVME, "M.2 slot, PCIe 3.0 x4"), _GUIDE),
    ),
    firmware=fact("UEFI (EDK II) by SolidRun, or U-Boot", _UEFI_LOG, _BOOT_LOG),
    interfaces=fact((FirmwareInterface.ACPI, FirmwareInterface.DEVICE_TREE), _ACPI_VIEW, _BOARD),
    quirk_facts=(
        fact(
            "Cores come in eight pairs, and a pair shares 1 MB of L2 cache: there is nothing larger in common.", _CPUS
        ),
        fact(
            "KVM does not start on it with Linux 5.4 (IDMAP intersecting with HYP VA): take a newer kernel.", _KVM_PATCH
        ),
        fact("A single memory module belongs in the upper slot with firmware older than 2021-05.", _GUIDE),
    ),
)

BOARDS: Final = (HONEYCOMB,)
