"""A machine whose system is not Linux (macOS): what Python and ``sysconf`` say, and no more than that."""

from __future__ import annotations

import os
import platform

from carmel.hardware.model import Board, Cpu, CpuKind, Group, Hardware, NumaNode

_ARCHITECTURES = {"arm64": "aarch64", "amd64": "x86_64"}


def read_hardware() -> Hardware:
    """One socket and one node; each CPU a core of its own. macOS has neither NUMA nor a way to pin a thread, so that
    nothing more would be of use to placement."""
    numbers = tuple(range(os.cpu_count() or 1))
    maker = "Apple" if platform.system() == "Darwin" and platform.machine() == "arm64" else None
    return Hardware(
        architecture=_ARCHITECTURES.get(platform.machine().lower(), platform.machine().lower()),
        page_bytes=os.sysconf("SC_PAGE_SIZE"),
        cpus=tuple(Cpu(id=number, socket=0, core=number, node=0) for number in numbers),
        nodes=(NumaNode(id=0, cpus=numbers, memory_bytes=_memory_bytes(), distances={0: 10}),),
        cpu_kinds=(CpuKind(name=f"{maker} silicon" if maker else platform.processor() or "unknown", cpus=numbers),),
        sockets=(Group(id=0, cpus=numbers, socket=0),),
        cores=tuple(Group(id=number, cpus=(number,), socket=0) for number in numbers),
        board=Board(vendor=maker),
        remarks=(f"{platform.system()} says little of its machine: caches, devices and kinds of cores are unknown.",),
    )


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return 0
