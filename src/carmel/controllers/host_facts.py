"""What is cheap to know of this machine: read once, from /proc and /sys, or from Python where there are none."""

from __future__ import annotations

import os
import platform
import re
import socket
from dataclasses import dataclass
from pathlib import Path

from carmel.resources.host import HostSystem

_GIC = re.compile(r"\bGIC(v[0-9]|-0)\b")
_CPU_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
}
"""Arm's own parts by MIDR_EL1.PartNum, from the technical reference manual of each."""


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
    return HostFacts(
        name=host_name(socket.gethostname()),
        system=HostSystem(
            architecture={"arm64": "aarch64", "amd64": "x86_64"}.get(platform.machine(), platform.machine()),
            board=_board(root),
            cpu_model=_cpu_model(root),
            operating_system=_operating_system(root),
            kernel=f"{platform.system()} {platform.release()}",
            boot_id=_text(root, "proc/sys/kernel/random/boot_id") or None,
            page_size_bytes=os.sysconf("SC_PAGE_SIZE"),
        ),
        cpus=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gic_version=_gic_version(root),
    )


def host_name(given: str) -> str:
    """The machine's name as a resource's: an RFC 1123 label."""
    short = re.sub(r"[^a-z0-9-]+", "-", given.lower().split(".")[0]).strip("-")[:63].strip("-")
    return short or "host"


def _text(root: Path, path: str) -> str:
    try:
        return (root / path).read_text("utf-8", "replace").strip("\0 \n")
    except OSError:
        return ""


def _board(root: Path) -> str | None:
    model = _text(root, "proc/device-tree/model")
    if model:
        return model
    words = (_text(root, f"sys/class/dmi/id/{name}") for name in ("sys_vendor", "product_name"))
    return " ".join(word for word in words if word) or None


def _cpu_model(root: Path) -> str | None:
    info = _text(root, "proc/cpuinfo")
    if named := re.search(r"^model name\s*:\s*(.+)$", info, re.MULTILINE):
        return named[1].strip()
    part = re.search(r"^CPU part\s*:\s*(0x[0-9a-f]+)$", info, re.MULTILINE)
    implementer = re.search(r"^CPU implementer\s*:\s*(0x[0-9a-f]+)$", info, re.MULTILINE)
    if part is None or implementer is None:
        return None
    if implementer[1] == "0x41" and part[1] in _CPU_PARTS:
        return _CPU_PARTS[part[1]]
    return f"implementer {implementer[1]}, part {part[1]}"


def _operating_system(root: Path) -> str | None:
    named = re.search(r'^PRETTY_NAME="?([^"\n]+)', _text(root, "etc/os-release"), re.MULTILINE)
    return named[1] if named else None


def _gic_version(root: Path) -> int | None:
    """From the names that the kernel's drivers give their interrupts (irq-gic.c: GICv2 or, before 5.12, GIC-0;
    irq-gic-v3.c: GICv3)."""
    found = _GIC.search(_text(root, "proc/interrupts"))
    if found is None:
        return None
    return 2 if found[1] == "-0" else int(found[1][1:])
