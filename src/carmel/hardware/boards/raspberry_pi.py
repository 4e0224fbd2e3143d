"""Raspberry Pi 4 Model B, 400 and 5."""

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
from carmel.hardware.boards.sources import edk2, linux, midr_source
from carmel.hardware.model import CacheType, FirmwareInterface
from carmel.units import GIB, KIB, MIB

CORTEX_A72: Final = Midr(0x41, 0xD08)
CORTEX_A76: Final = Midr(0x41, 0xD0B)

_DTS = "arch/arm/boot/dts/broadcom"
_BCM2711 = f"{_DTS}/bcm2711.dtsi"
_BCM2712 = "arch/arm64/boot/dts/broadcom/bcm2712.dtsi"
_A72_CPUS: Final = linux(_BCM2711, "/cpus")
_A76_CPUS: Final = linux(_BCM2712, "/cpus")
_SMBIOS: Final = edk2("Platform/RaspberryPi/Drivers/PlatformSmbiosDxe/PlatformSmbiosDxe.c", "mSysInfoType1Strings")
_PFTF: Final = Source("Raspberry Pi 4 UEFI firmware", "README, Initial Notice", "https://github.com/pftf/RPi4")
_RPI4_README: Final = edk2("Platform/RaspberryPi/RPi4/Readme.md", "Status")


def _documentation(path: str, where: str) -> Source:
    return Source(
        "Raspberry Pi documentation",
        where,
        f"https://github.com/raspberrypi/documentation/blob/develop/documentation/asciidoc/computers/{path}",
    )


_MODELS: Final = _documentation("raspberry-pi/introduction.adoc", "Flagship series")
_BCM2711_PAGE: Final = _documentation("processors/bcm2711.adoc", "BCM2711")
_BCM2712_PAGE: Final = _documentation("processors/bcm2712.adoc", "BCM2712")
_RTC_PAGE: Final = _documentation("raspberry-pi/rtc.adoc", "Real Time Clock (RTC)")
_PCIE_PAGE: Final = _documentation("raspberry-pi/pcie.adoc", "Raspberry Pi connector for PCIe")
_PI4_LOG: Final = Source(
    "OP-TEE on a Raspberry Pi 4, a guide",
    "README, boot log: Hyp mode initialized successfully; tables of order 4 and 65536 bytes",
    "https://github.com/Jachm11/optee-os_raspberry_pi_4_port/blob/main/README.md",
)
_KVM_LOG: Final = Source(
    "Raspberry Pi Linux, issue 5895",
    "boot log of a Raspberry Pi 5: kvm lines, PAGE_SIZE(16384)",
    "https://github.com/raspberrypi/linux/issues/5895",
)


_KVM_BROKEN: Final = Source(
    "Raspberry Pi Linux, issue 6550",
    "description: Raspberry Pi 5, 6.12 and 6.13",
    "https://github.com/raspberrypi/linux/issues/6550",
)


def _gic_400(path: str) -> Source:
    return linux(path, 'gicv2: interrupt-controller, compatible "arm,gic-400"')


_NO_CLOCK: Final = fact(
    "It has no battery-backed clock: until it has the time from the network it lives in the past, and certificates "
    "look as if they were not valid yet.",
    _RPI4_README,
)
_RAM_LIMIT: Final = fact(
    "Its UEFI firmware hides all memory above 3 GB by default: turn that off in Device Manager, Raspberry Pi "
    "Configuration, Advanced Settings (Linux 5.8 and later can use all of it).",
    _PFTF,
    _RPI4_README,
)
_NO_NVRAM: Final = fact(
    "Its UEFI variables are kept in the firmware's own file on the boot medium: what an operating system sets (a boot "
    "entry) is gone after a reset, so the boot loader has to lie at EFI/BOOT/BOOTAA64.EFI.",
    _RPI4_README,
)
_ACPI_ONLY: Final = fact(
    "Its UEFI firmware offers ACPI and no device tree by default, in which Linux lacks drivers for some of the board's "
    "devices; System Table Selection in its settings changes that.",
    _RPI4_README,
)
_USB_BOOT: Final = fact(
    "It starts its UEFI firmware from a USB drive only with a recent boot loader in its EEPROM.",
    _PFTF,
)
_TRAPPED_GICV: Final = fact(
    "KVM traps each access to the virtual interrupt controller, since its registers are not page-aligned for 16 KiB "
    "pages: interrupts cost more than on other boards unless a kernel with 4 KiB pages runs.",
    _KVM_LOG,
    linux("arch/arm64/kvm/vgic/vgic-v2.c", "vgic_v2_probe: PAGE_ALIGNED"),
)
_GICV2_LIMIT = "Its interrupt controller is a GICv2: a VM can have 8 vCPUs at most."


def _a72(source: Source) -> CoreFacts:
    return CoreFacts(
        name="Cortex-A72",
        cores=fact(4, source),
        midr=fact(CORTEX_A72, midr_source("ARM_CPU_PART_CORTEX_A72")),
        cluster=fact(4, linux(_BCM2711, "/cpus: one L2 for all four")),
        max_frequency_khz=fact(1_500_000, _BCM2711_PAGE),
        caches=(
            fact(CacheShape(1, CacheType.DATA, 32 * KIB), source, _BCM2711_PAGE),
            fact(CacheShape(1, CacheType.INSTRUCTION, 48 * KIB), source, _BCM2711_PAGE),
            fact(CacheShape(2, CacheType.UNIFIED, MIB, shared_by=4), source, _BCM2711_PAGE),
        ),
    )


def _pi4(board_id: str, name: str, tree: str, model: str, memory: tuple[int, ...]) -> BoardFacts:
    dts = linux(f"{_DTS}/{tree}.dts", "/: compatible and model")
    return BoardFacts(
        id=board_id,
        name=name,
        vendor="Raspberry Pi",
        about=dts,
        recognised_by=(
            Recognition(dts, compatible=model),
            Recognition(_SMBIOS, vendor="raspberry pi*", product=f"{name.lower()}*"),
        ),
        sockets=fact(1, _BCM2711_PAGE),
        nodes_per_socket=fact(1, _A72_CPUS),
        cores=(_a72(_A72_CPUS),),
        threads_per_core=fact(1, _A72_CPUS),
        memory_options=fact(memory, _MODELS),
        memory_maximum=fact(max(memory), _MODELS),
        gic_version=fact(2, _gic_400(_BCM2711)),
        vhe=fact(False, _PI4_LOG),
        page_sizes=fact((4 * KIB,), _PI4_LOG),
        pcie=fact("one lane, taken by the USB 3 controller", _BCM2711_PAGE),
        devices=(
            fact(
                Device(
                    DeviceKind.NIC,
                    "Gigabit Ethernet",
                    speed_mbps=1000,
                    driver="bcmgenet",
                    tree_node="/scb/ethernet@7d580000",
                ),
                linux(_BCM2711, "/scb/ethernet@7d580000"),
                _MODELS,
            ),
        ),
        firmware=fact(
            "UEFI of edk2-platforms (RPi4), built by the pftf project; not on the board, but on its medium", _PFTF
        ),
        interfaces=fact((FirmwareInterface.ACPI, FirmwareInterface.DEVICE_TREE), _RPI4_README),
        clock=fact("none", _RPI4_README),
        limit_facts=(
            fact(_GICV2_LIMIT, _gic_400(_BCM2711), linux("include/kvm/arm_vgic.h", "VGIC_V2_MAX_CPUS")),
            fact("It has no place for an NVMe drive: its PCIe lane serves the USB 3 ports.", _BCM2711_PAGE),
        ),
        quirk_facts=(_NO_CLOCK, _RAM_LIMIT, _NO_NVRAM, _ACPI_ONLY, _USB_BOOT),
    )


_PI5_DTS: Final = linux("arch/arm64/boot/dts/broadcom/bcm2712-rpi-5-b-ovl-rp1.dts", "/: compatible and model")

PI_5: Final = BoardFacts(
    id="raspberry-pi-5",
    name="Raspberry Pi 5",
    vendor="Raspberry Pi",
    about=_PI5_DTS,
    recognised_by=(Recognition(_PI5_DTS, compatible="raspberrypi,5-model-b"),),
    sockets=fact(1, _BCM2712_PAGE),
    nodes_per_socket=fact(1, _A76_CPUS),
    cores=(
        CoreFacts(
            name="Cortex-A76",
            cores=fact(4, _A76_CPUS, _BCM2712_PAGE),
            midr=fact(CORTEX_A76, midr_source("ARM_CPU_PART_CORTEX_A76")),
            cluster=fact(4, _BCM2712_PAGE),
            max_frequency_khz=fact(2_400_000, _BCM2712_PAGE),
            caches=(
                fact(CacheShape(1, CacheType.DATA, 64 * KIB), _A76_CPUS, _BCM2712_PAGE),
                fact(CacheShape(1, CacheType.INSTRUCTION, 64 * KIB), _A76_CPUS, _BCM2712_PAGE),
                fact(CacheShape(2, CacheType.UNIFIED, 512 * KIB), _A76_CPUS, _BCM2712_PAGE),
                fact(CacheShape(3, CacheType.UNIFIED, 2 * MIB, shared_by=4), _A76_CPUS, _BCM2712_PAGE),
            ),
        ),
    ),
    threads_per_core=fact(1, _A76_CPUS),
    memory_options=fact((4 * GIB, 8 * GIB), _MODELS),
    gic_version=fact(2, _gic_400(_BCM2712)),
    vhe=fact(True, _KVM_LOG),
    page_sizes=fact((16 * KIB, 4 * KIB), _KVM_LOG),
    pcie=fact(
        "one lane of PCIe 2.0 on a flat connector; four more serve the RP1 south bridge", _PCIE_PAGE, _BCM2712_PAGE
    ),
    devices=(
        fact(Device(DeviceKind.NIC, "Gigabit Ethernet", speed_mbps=1000, tree_node="/pcie2/rp1_eth"), _MODELS),
        fact(Device(DeviceKind.NVME, "a drive on the PCIe connector (by a HAT)"), _PCIE_PAGE),
    ),
    interfaces=fact((FirmwareInterface.DEVICE_TREE,), _PI5_DTS),
    clock=fact("on the board; keeps the time without power only with a battery at its connector", _RTC_PAGE),
    limit_facts=(fact(_GICV2_LIMIT, _gic_400(_BCM2712), linux("include/kvm/arm_vgic.h", "VGIC_V2_MAX_CPUS")),),
    quirk_facts=(
        fact(
            "The usual kernel of Raspberry Pi OS has pages of 16 KiB: huge pages are 2 MiB, 32 MiB and 1 GiB there, "
            "and a VM cannot move to a host with other pages while it runs.",
            _KVM_LOG,
            linux("Documentation/arch/arm64/hugetlbpage.rst", "table of sizes"),
        ),
        _TRAPPED_GICV,
        fact(
            "Raspberry Pi's own kernels 6.12 and 6.13 of December 2024 set up no virtual interrupt controller, and VMs "
            "hang after their firmware's first lines: take an older or a newer one.",
            _KVM_BROKEN,
        ),
        fact(
            "Without a battery at its connector the clock starts anew with the power: certificates may look as if they "
            "were not valid yet.",
            _RTC_PAGE,
        ),
        fact("It does not boot from NVMe until BOOT_ORDER in its boot loader's settings says so.", _PCIE_PAGE),
    ),
)

BOARDS: Final = (
    _pi4(
        "raspberry-pi-4b",
        "Raspberry Pi 4 Model B",
        "bcm2711-rpi-4-b",
        "raspberrypi,4-model-b",
        (GIB, 2 * GIB, 4 * GIB, 8 * GIB),
    ),
    _pi4("raspberry-pi-400", "Raspberry Pi 400", "bcm2711-rpi-400", "raspberrypi,400", (4 * GIB,)),
    PI_5,
)
