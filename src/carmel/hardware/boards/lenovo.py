"""Lenovo ThinkSystem HR330A and HR350A: servers with Ampere eMAG."""

from __future__ import annotations

from typing import Final

from carmel.hardware.boards.facts import BoardFacts, CacheShape, CoreFacts, Midr, Recognition, Source, fact
from carmel.hardware.boards.sources import mail, midr_source
from carmel.hardware.model import CacheType
from carmel.units import GIB, KIB

EMAG: Final = Midr(0x50, 0x000)

_REPORT: Final = mail(
    "CA+QYu4pFecWRuGSsvNLq3YANPzO2Dz09X86WivbuzXfSNKTPuw@mail.gmail.com",
    "[aarch64] [ampere] [6.0.0] pc : kset_find_obj",
    "Hardware name: Lenovo HR330A; 4k pages",
)
_LSCPU: Final = Source(
    ".NET Blog, Arm64 Performance in .NET 5",
    "Techempower benchmarks: hardware and lscpu of a ThinkSystem HR330A",
    "https://devblogs.microsoft.com/dotnet/arm64-performance-in-net-5/",
)

EMAG_SERVER: Final = BoardFacts(
    id="emag",
    name="Lenovo ThinkSystem HR330A or HR350A (Ampere eMAG)",
    vendor="Lenovo",
    about=_REPORT,
    recognised_by=(
        Recognition(_REPORT, vendor="lenovo*", product="hr330a*", midr=EMAG),
        Recognition(_REPORT, vendor="lenovo*", product="hr350a*", midr=EMAG),
    ),
    sockets=fact(1, _LSCPU),
    nodes_per_socket=fact(1, _LSCPU),
    cores=(
        CoreFacts(
            name="eMAG",
            cores=fact(32, _LSCPU),
            midr=fact(EMAG, midr_source("ARM_CPU_IMP_APM, APM_CPU_PART_XGENE")),
            max_frequency_khz=fact(3_300_000, _LSCPU),
            caches=(
                fact(CacheShape(1, CacheType.DATA, 32 * KIB), _LSCPU),
                fact(CacheShape(1, CacheType.INSTRUCTION, 32 * KIB), _LSCPU),
            ),
        ),
    ),
    threads_per_core=fact(1, _LSCPU),
    memory_options=fact((64 * GIB,), _LSCPU),
    page_sizes=fact((4 * KIB,), _REPORT),
    quirk_facts=(fact("Linux and lscpu call its cores X-Gene: MIDR gives them the maker and part of those.", _LSCPU),),
)

BOARDS: Final = (EMAG_SERVER,)
