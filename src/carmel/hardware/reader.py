"""The machine, read into one value."""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import replace
from pathlib import Path

from carmel.hardware import other_system
from carmel.hardware.accelerators import read_accelerators
from carmel.hardware.boards import identify
from carmel.hardware.caches import read_caches
from carmel.hardware.cpuinfo import CpuInfo, read_cpuinfo
from carmel.hardware.cpus import CPUS, read_cpus, read_kinds
from carmel.hardware.firmware import read_board, read_dmi, read_firmware
from carmel.hardware.hugepages import machine_pools
from carmel.hardware.kvm import read_kvm
from carmel.hardware.model import Hardware
from carmel.hardware.nics import read_nics
from carmel.hardware.nodes import read_nodes
from carmel.hardware.nvme import read_nvme
from carmel.hardware.pci import read_pci
from carmel.hardware.sysroot import Sysroot, printable
from carmel.hardware.topology import read_topology

_ARCHITECTURES = {"arm64": "aarch64", "amd64": "x86_64"}
_BASE_PAGE = {2 << 20: 4096, 32 << 20: 16384, 512 << 20: 65536}
"""By the default huge page: a page table's worth of pages (Arm ARM, DDI 0487, D8.2: translation granules)."""


def read_hardware(root: Path = Path("/")) -> Hardware:
    """The machine whose /sys and /proc are below ``root``. Blocking: some thousand small files on a large server.

    What is missing is absent in the value, and what contradicts itself is settled; ``remarks`` say both.
    Raises ``NothingToRead``: ``root`` holds no machine.
    """
    files = Sysroot(root)
    if files.live and sys.platform != "linux":
        return other_system.read_hardware()
    info = read_cpuinfo(files)
    online, offline = read_cpus(files, info)
    kinds = read_kinds(files, online, info)
    packages = {cpu: files.number(f"{CPUS}/cpu{cpu}/topology/physical_package_id") for cpu in online}
    nodes = read_nodes(files, online, packages)
    topology = read_topology(files, online, kinds, {cpu: node.id for node in nodes for cpu in node.cpus})
    pci = read_pci(files, frozenset(node.id for node in nodes))
    dmi = read_dmi(files)
    architecture = _architecture(files, info)
    hardware = Hardware(
        architecture=architecture,
        page_bytes=_page_bytes(files),
        cpus=topology.cpus,
        nodes=nodes,
        cpu_kinds=kinds,
        sockets=topology.sockets,
        dies=topology.dies,
        clusters=topology.clusters,
        cores=topology.cores,
        caches=read_caches(files, online, topology.cores),
        offline_cpus=offline,
        huge_pages=machine_pools(files, (node.huge_pages for node in nodes)),
        pci=pci,
        nvme=read_nvme(files, {function.address: function.node for function in pci}),
        nics=read_nics(files, {function.address: function for function in pci}),
        accelerators=read_accelerators(files, pci),
        kvm=read_kvm(files, architecture),
        firmware=read_firmware(files, dmi),
        board=read_board(files, dmi),
    )
    return replace(_identified(hardware), remarks=files.remarks)


def _identified(hardware: Hardware) -> Hardware:
    known = identify(hardware.board, hardware.cpu_kinds, len(hardware.sockets), nodes=len(hardware.nodes))
    return replace(hardware, board=replace(hardware.board, catalogue_id=known))


def _architecture(files: Sysroot, info: CpuInfo) -> str:
    """As in ``uname -m``; of a recorded machine by the kernel's word for it (since Linux 6.1), hwloc's, or its CPUs."""
    if files.live:
        said = platform.machine()
    else:
        said = printable(files.text("proc/sys/kernel/arch") or _recorded(files, "Architecture") or "")
    if not said:
        arm = any("CPU implementer" in block for block in info.values())
        said = "aarch64" if arm or files.exists(f"{CPUS}/cpu0/regs") else "x86_64"
        files.remark(f"Nothing says what architecture the machine has: taken to be {said} by its CPUs.")
    return _ARCHITECTURES.get(said, said)


def _page_bytes(files: Sysroot) -> int:
    if files.live:
        return os.sysconf("SC_PAGE_SIZE")
    recorded = _recorded(files, "PageSize") or ""
    if recorded.isascii() and recorded.isdecimal() and int(recorded[:9]) in _BASE_PAGE.values():
        return int(recorded)
    default = re.search(r"^Hugepagesize:\s+(\d{1,9}) kB", files.text("proc/meminfo", 16384) or "", re.MULTILINE)
    found = _BASE_PAGE.get(int(default[1]) << 10) if default else None
    if found is None:
        files.remark("Nothing says how large the machine's pages are: taken as 4 KiB.")
    return found or 4096


def _recorded(files: Sysroot, key: str) -> str | None:
    """From the note of hwloc-gather-topology, which records what no file says."""
    note = files.text("proc/hwloc-nofile-info") or ""
    found = re.search(rf"^{key}: (\S+)$", note, re.MULTILINE)
    return found[1] if found else None
