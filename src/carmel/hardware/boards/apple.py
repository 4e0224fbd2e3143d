"""Apple machines with M1, under Linux."""

from __future__ import annotations

from typing import Final

from carmel.hardware.boards.facts import BoardFacts, CoreFacts, Device, DeviceKind, Midr, Recognition, Source, fact
from carmel.hardware.boards.sources import linux, midr_source
from carmel.hardware.model import FirmwareInterface
from carmel.units import KIB

ICESTORM: Final = Midr(0x61, 0x022)
FIRESTORM: Final = Midr(0x61, 0x023)

_T8103 = "arch/arm64/boot/dts/apple/t8103.dtsi"
_ROOT: Final = linux(_T8103, "/: compatible")
_CPUS: Final = linux(_T8103, "/cpus")
_AFFINITY: Final = linux(_T8103, "/soc/interrupt-controller@23b100000/affinities")
_AIC: Final = linux("drivers/irqchip/irq-apple-aic.c", "vgic_info: GIC_V3, no_maint_irq_mask, no_hw_deactivation")
_PAGES: Final = Source(
    "Asahi Linux documentation, Broken Software",
    "Why not just use 4K pages then?",
    "https://github.com/AsahiLinux/docs/blob/main/docs/sw/broken-software.md",
)
_QEMU: Final = Source(
    "Asahi Linux documentation, Broken Software",
    "Fixed packages: libvirt/QEMU/KVM",
    "https://github.com/AsahiLinux/docs/blob/main/docs/sw/broken-software.md",
)

M1: Final = BoardFacts(
    id="apple-m1",
    name="Apple Mac with M1",
    vendor="Apple",
    about=_ROOT,
    recognised_by=(Recognition(_ROOT, compatible="apple,t8103"),),
    sockets=fact(1, _CPUS),
    nodes_per_socket=fact(1, _CPUS),
    cores=(
        CoreFacts(
            name="Icestorm (M1)",
            cores=fact(4, _CPUS),
            midr=fact(ICESTORM, midr_source("APPLE_CPU_PART_M1_ICESTORM")),
            cluster=fact(4, _AFFINITY),
        ),
        CoreFacts(
            name="Firestorm (M1)",
            cores=fact(4, _CPUS),
            midr=fact(FIRESTORM, midr_source("APPLE_CPU_PART_M1_FIRESTORM")),
            cluster=fact(4, _AFFINITY),
        ),
    ),
    threads_per_core=fact(1, _CPUS),
    gic_version=fact(3, _AIC),
    page_sizes=fact((16 * KIB,), _PAGES),
    iommu=fact(
        "Apple DART, in units of 16 KiB", linux(_T8103, '/soc/dart@681008000, compatible "apple,t8103-dart"'), _PAGES
    ),
    devices=(
        fact(
            Device(DeviceKind.NVME, "the built-in drive", driver="nvme-apple", tree_node="/soc/nvme@27bcc0000"),
            linux(_T8103, "/soc/nvme@27bcc0000"),
        ),
    ),
    interfaces=fact((FirmwareInterface.DEVICE_TREE,), _ROOT),
    limit_facts=(
        fact("It has two kinds of core: a VM's vCPUs run on one kind, at most four of each.", _CPUS),
        fact("Linux runs with pages of 16 KiB here, for its IOMMUs know no smaller ones.", _PAGES),
    ),
    quirk_facts=(
        fact(
            "QEMU before 7.2.6, 8.0.5 and 8.1.1 does not work with KVM on pages of 16 KiB: take a newer one.",
            _QEMU,
        ),
        fact(
            "Its own interrupt controller is no GIC; its cores virtualise a GICv3 for VMs all the same.",
            _AIC,
            linux(_T8103, '/soc/interrupt-controller@23b100000, compatible "apple,aic"'),
        ),
    ),
)

BOARDS: Final = (M1,)
