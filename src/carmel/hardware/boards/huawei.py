"""Servers with HiSilicon Kunpeng 920."""

from __future__ import annotations

from typing import Final

from carmel.hardware.boards.facts import BoardFacts, CacheShape, CoreFacts, Midr, Recognition, Source, fact
from carmel.hardware.boards.sources import mail, midr_source
from carmel.hardware.model import CacheType
from carmel.units import KIB, MIB

TSV110: Final = Midr(0x48, 0xD01)


def _recorded(where: str) -> Source:
    return Source(
        "hwloc's test data: a recorded Huawei XA320 V2",
        where,
        "https://github.com/open-mpi/hwloc/blob/master/tests/hwloc/linux/128arm-2pa2n8cluster4co.tar.bz2",
    )


_LSTOPO: Final = Source(
    "hwloc's test data: lstopo of a Huawei XA320 V2",
    "128arm-2pa2n8cluster4co.console",
    "https://github.com/open-mpi/hwloc/blob/master/tests/hwloc/linux/128arm-2pa2n8cluster4co.console",
)
_DMI: Final = _recorded("sys/class/dmi/id")
_CPUINFO: Final = _recorded("proc/cpuinfo")
_CMDLINE: Final = _recorded("proc/cmdline: arm_smmu_v3.disable_msipolling")
_HUGE: Final = _recorded("sys/kernel/mm/hugepages: the sizes of 4 KiB pages")

_TAISHAN: Final = mail(
    "20190713123704.2d8a308c@why", "ARM/gic-v4: deadlock occurred", "Hardware name: Huawei TaiShan 2280 V2; its GICv4"
)

KUNPENG_920: Final = BoardFacts(
    id="kunpeng-920-2p",
    name="Huawei server with 2 x Kunpeng 920",
    vendor="Huawei",
    about=_DMI,
    recognised_by=(
        Recognition(_DMI, vendor="huawei*", midr=TSV110, sockets=2, cores=(64, 64), nodes=4),
        Recognition(_DMI, vendor="huawei*", product="xa320 v2*", midr=TSV110, sockets=2, cores=(64, 64)),
        Recognition(_TAISHAN, vendor="huawei*", product="taishan 2280 v2*", midr=TSV110, sockets=2, cores=(64, 64)),
    ),
    sockets=fact(2, _LSTOPO),
    nodes_per_socket=fact(2, _LSTOPO),
    distances=fact(((10, 16, 32, 33), (16, 10, 25, 32), (32, 25, 10, 16), (33, 32, 16, 10)), _LSTOPO),
    cores=(
        CoreFacts(
            name="TaiShan v110",
            cores=fact(64, _LSTOPO),
            midr=fact(TSV110, _CPUINFO, midr_source("HISI_CPU_PART_TSV110")),
            cluster=fact(4, _LSTOPO),
            caches=(
                fact(CacheShape(1, CacheType.DATA, 64 * KIB), _LSTOPO),
                fact(CacheShape(1, CacheType.INSTRUCTION, 64 * KIB), _LSTOPO),
                fact(CacheShape(2, CacheType.UNIFIED, 512 * KIB), _LSTOPO),
                fact(CacheShape(3, CacheType.UNIFIED, 32 * MIB, shared_by=32), _LSTOPO),
            ),
        ),
    ),
    threads_per_core=fact(1, _LSTOPO),
    gic_version=fact(3, _TAISHAN),
    page_sizes=fact((4 * KIB,), _HUGE),
    iommu=fact("SMMUv3", _CMDLINE),
    quirk_facts=(
        fact(
            "A socket has two NUMA nodes, each with its own L3 cache and half of the socket's memory: a VM of up to 32 "
            "vCPUs fits one.",
            _LSTOPO,
        ),
        fact(
            "Two nodes of different sockets lie 25, 32 or 33 away, by which two they are: which pair matters.", _LSTOPO
        ),
        fact("Clusters are of four cores and share no cache of their own; L3 is the node's.", _LSTOPO),
    ),
)

BOARDS: Final = (KUNPENG_920,)
