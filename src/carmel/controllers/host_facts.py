"""What is cheap to know of this machine: read once, from /proc and /sys, or from Python where there are none."""

from __future__ import annotations

import os
import platform
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from carmel.hardware.cpuinfo import midr_of, model_of, read_cpuinfo
from carmel.hardware.firmware import board_name, read_board, read_dmi
from carmel.hardware.kvm import gic_version
from carmel.hardware.sysroot import Sysroot
from carmel.resources.host import HostSystem


@dataclass(frozen=True, slots=True)
class HostFacts:
    """``gic_version`` is that of the machine's own interrupt controller, ``None`` where there is none to be seen."""

    name: str
    system: HostSystem
    cpus: int
    memory_bytes: int
    gic_version: int | None

    @property
    def boot_id(self) -> str:
        return self.system.boot_id or ""


def read_facts(root: Path = Path("/")) -> HostFacts:
    """Blocking, a few small files. ``root`` is in front of /proc and /sys, for tests."""
    files = Sysroot(root)
    return HostFacts(
        name=host_name(socket.gethostname()),
        system=HostSystem(
            architecture={"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine(), platform.machine()),
            board=board_name(read_board(files, read_dmi(files))),
            cpu_model=_cpu_model(files),
            operating_system=_operating_system(files),
            kernel=f"{platform.system()} {platform.release()}",
            boot_id=files.word("proc/sys/kernel/random/boot_id"),
            page_size_bytes=os.sysconf("SC_PAGE_SIZE"),
        ),
        cpus=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gic_version=gic_version(files),
    )


def host_name(given: str) -> str:
    """The machine's name as a resource's: an RFC 1123 label."""
    short = re.sub(r"[^a-z0-9-]+", "-", given.lower().split(".")[0]).strip("-")[:63].strip("-")
    return short or "host"


def _cpu_model(files: Sysroot) -> str | None:
    block = next(iter(read_cpuinfo(files).values()), {})
    midr = midr_of(block)
    return midr.name if midr else model_of(block)


def _operating_system(files: Sysroot) -> str | None:
    named = re.search(r'^PRETTY_NAME="?([^"\n]+)', files.text("etc/os-release") or "", re.MULTILINE)
    return named[1] if named else None
