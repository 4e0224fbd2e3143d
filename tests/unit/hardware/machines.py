"""Synthetic machines: small trees of /sys and /proc in a folder, as a kernel would show them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from carmel.cpulist import format_cpu_list

GIB = 1 << 30
CORTEX_A72, NEOVERSE_N1, CARMEL = 0x410FD083, 0x413FD0C1, 0x4E0F0040
"""MIDR_EL1 of a Raspberry Pi 4, an Altra and a Xavier."""

_CPU = "sys/devices/system/cpu"
_NODE = "sys/devices/system/node"


@dataclass(frozen=True, slots=True)
class Tree:
    """A machine's files below ``root``. Paths are without a slash in front."""

    root: Path

    def write(self, path: str, content: str | bytes) -> None:
        place = self.root / path
        data = content.encode() if isinstance(content, str) else content
        try:
            place.write_bytes(data)
        except FileNotFoundError:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)

    def link(self, path: str, target: str) -> None:
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)

    def remove(self, path: str) -> None:
        place = self.root / path
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink()

    def files(self) -> list[str]:
        """Every file and link, sorted."""
        return sorted(
            str(place.relative_to(self.root))
            for place in self.root.rglob("*")
            if place.is_symlink() or not place.is_dir()
        )

    @contextmanager
    def kept(self, paths: Iterable[str]) -> Iterator[None]:
        """Whatever is done to these files and links meanwhile, they are as before afterwards."""
        links = {path: str(place.readlink()) for path in paths if (place := self.root / path).is_symlink()}
        files = {path: (self.root / path).read_bytes() for path in paths if path not in links}
        try:
            yield
        finally:
            for path in (*links, *files):
                (self.root / path).unlink(missing_ok=True)
            for path, target in links.items():
                self.link(path, target)
            for path, data in files.items():
                self.write(path, data)

    # -- CPUs -----------------------------------------------------------------------------------------------------
    def cpu(self, cpu: int, topology: dict[str, object], midr: int | None = None, **attributes: object) -> None:
        """``topology`` by sysfs's names."""
        for name, value in topology.items():
            self.write(f"{_CPU}/cpu{cpu}/topology/{name}", f"{value}\n")
        for name, value in attributes.items():
            self.write(f"{_CPU}/cpu{cpu}/{name}", f"{value}\n")
        if midr is not None:
            self.write(f"{_CPU}/cpu{cpu}/regs/identification/midr_el1", f"{midr:#018x}\n")

    def cache(self, cpu: int, index: int, level: int, kind: str, size: str, shared: str) -> None:
        """64 bytes a line, four ways."""
        folder = f"{_CPU}/cpu{cpu}/cache/index{index}"
        sets = int(size.rstrip("KM")) * (1024 if size.endswith("K") else 1 << 20) // 256
        for name, value in {
            "level": level,
            "type": kind,
            "size": size,
            "coherency_line_size": 64,
            "number_of_sets": sets,
            "ways_of_associativity": 4,
            "shared_cpu_list": shared,
        }.items():
            self.write(f"{folder}/{name}", f"{value}\n")

    # -- memory ---------------------------------------------------------------------------------------------------
    def node(self, node: int, cpus: str, memory: int, distances: str, huge_pages: tuple[int, ...] = ()) -> None:
        """``huge_pages``: sizes, with no page in any pool."""
        folder = f"{_NODE}/node{node}"
        self.write(f"{folder}/cpulist", f"{cpus}\n")
        self.write(f"{folder}/distance", f"{distances}\n")
        kib = memory >> 10
        self.write(f"{folder}/meminfo", f"Node {node} MemTotal: {kib:>14} kB\nNode {node} MemFree: {kib // 2:>15} kB\n")
        for size in huge_pages:
            for name in ("nr_hugepages", "free_hugepages"):
                self.write(f"{folder}/hugepages/hugepages-{size >> 10}kB/{name}", "0\n")

    # -- devices --------------------------------------------------------------------------------------------------
    def pci(self, address: str, ids: str, class_code: int, node: int | None = None, driver: str = "") -> str:
        """``ids``: ``vendor:device`` in hexadecimal. Its real folder."""
        folder = f"sys/devices/pci{address[:7]}/{address}"
        vendor, device = ids.split(":")
        self.write(f"{folder}/vendor", f"0x{vendor}\n")
        self.write(f"{folder}/device", f"0x{device}\n")
        self.write(f"{folder}/class", f"{class_code:#08x}\n")
        self.write(f"{folder}/numa_node", f"{-1 if node is None else node}\n")
        if driver:
            (self.root / f"sys/bus/pci/drivers/{driver}").mkdir(parents=True, exist_ok=True)
            self.link(f"{folder}/driver", f"../../../bus/pci/drivers/{driver}")
        self.link(f"sys/bus/pci/devices/{address}", f"../../../devices/pci{address[:7]}/{address}")
        return folder

    def nvme(self, number: int, address: str, node: int | None = None, size: int = 960 * GIB) -> str:
        """A controller with one namespace. The namespace's real folder."""
        name = f"nvme{number}"
        folder = f"{self.pci(address, '144d:a808', 0x010802, node, 'nvme')}/nvme/{name}"
        for attribute, value in {
            "model": "SAMSUNG MZQL2960 ",
            "serial": f"S64{number}",
            "firmware_rev": "GDC5",
        }.items():
            self.write(f"{folder}/{attribute}", f"{value}\n")
        self.link(f"sys/class/nvme/{name}", f"../../devices/pci{address[:7]}/{address}/nvme/{name}")
        return self.block(f"{folder}/{name}n1", f"259:{16 * number}", size)

    def block(self, folder: str, number: str, size: int) -> str:
        """A block device, or a partition of one; its class link too."""
        name = folder.rpartition("/")[2]
        self.write(f"{folder}/dev", f"{number}\n")
        self.write(f"{folder}/size", f"{size // 512}\n")
        self.write(f"{folder}/queue/logical_block_size", "512\n")
        (self.root / folder / "holders").mkdir(exist_ok=True)
        self.link(f"sys/class/block/{name}", f"../../{folder.removeprefix('sys/')}")
        return folder

    def nic(self, name: str, address: str, node: int | None = None, vfs: int | None = None) -> None:
        folder = self.pci(address, "15b3:101d", 0x020000, node, "mlx5_core")
        if vfs is not None:
            self.write(f"{folder}/sriov_totalvfs", f"{vfs}\n")
            self.write(f"{folder}/sriov_numvfs", "0\n")
        self.write(f"{folder}/net/{name}/address", "0c:42:a1:00:00:01\n")
        self.write(f"{folder}/net/{name}/carrier", "1\n")
        self.write(f"{folder}/net/{name}/speed", "100000\n")
        self.link(f"{folder}/net/{name}/device", f"../../../{address}")
        self.link(f"sys/class/net/{name}", f"../../devices/pci{address[:7]}/{address}/net/{name}")

    # -- device tree ----------------------------------------------------------------------------------------------
    def tree(self, node: str, **properties: int | str | tuple[str, ...]) -> None:
        """A node's properties: cells, or strings. Underscores stand for dashes, as in ``cache_size``."""
        for name, value in properties.items():
            words = (value,) if isinstance(value, str) else value
            data = words.to_bytes(4, "big") if isinstance(words, int) else b"".join(f"{w}\0".encode() for w in words)
            self.write(f"sys/firmware/devicetree/base{node}/{name.replace('_', '-')}", data)


def server(
    root: Path,
    *,
    sockets: int = 2,
    nodes: int = 1,
    cores: int = 4,
    threads: int = 1,
    cluster: int | None = None,
    memory: int = 16 * GIB,
    midr: int = NEOVERSE_N1,
    caches: bool = True,
) -> Tree:
    """An Arm server described by ACPI. ``nodes`` and ``cores`` are each socket's, ``memory`` each node's, ``cluster``
    the cores of one. CPUs are numbered node by node, a core's threads side by side."""
    tree = Tree(root)
    total = sockets * cores * threads
    for cpu in range(total):
        core = cpu // threads
        first = core * threads
        topology: dict[str, object] = {
            "physical_package_id": core // cores,
            "core_id": core,
            "die_id": -1,
            "cluster_id": -1 if cluster is None else core // cluster * 100,
            "core_cpus_list": format_cpu_list(range(first, first + threads)),
        }
        tree.cpu(cpu, topology, midr, cpu_capacity=1024)
        if caches:
            tree.cache(cpu, 0, 1, "Data", "64K", str(topology["core_cpus_list"]))
            tree.cache(cpu, 1, 1, "Instruction", "64K", str(topology["core_cpus_list"]))
            tree.cache(cpu, 2, 2, "Unified", "1024K", str(topology["core_cpus_list"]))
    _lists(tree, total)
    count = sockets * nodes
    for node in range(count):
        cpus = format_cpu_list(range(node * total // count, (node + 1) * total // count))
        row = (10 if other == node else 12 if other // nodes == node // nodes else 32 for other in range(count))
        tree.node(node, cpus, memory, " ".join(map(str, row)), (64 << 10, 2 << 20, 32 << 20, 1 << 30))
    tree.write(f"{_NODE}/online", f"0-{count - 1}\n" if count > 1 else "0\n")
    tree.write("sys/firmware/acpi/tables/APIC", _madt(gic=3))
    tree.write("proc/meminfo", f"MemTotal: {count * memory >> 10} kB\nHugepagesize:       2048 kB\n")
    tree.write("proc/sys/kernel/arch", "aarch64\n")
    return tree


def raspberry_pi_4(root: Path) -> Tree:
    """As a kernel without NUMA shows it, described by a device tree, reached as Linux links it (absolute)."""
    tree = Tree(root)
    tree.tree("", compatible=("raspberrypi,4-model-b", "brcm,bcm2711"), model="Raspberry Pi 4 Model B Rev 1.4")
    tree.tree("/cpus/l2-cache0", phandle=9, cache_size=1 << 20, cache_line_size=64, cache_sets=1024, cache_level=2)
    for cpu in range(4):
        topology: dict[str, object] = {"physical_package_id": 0, "core_id": cpu, "cluster_id": 0, "core_cpus_list": cpu}
        tree.cpu(cpu, topology, CORTEX_A72)
        tree.write(f"{_CPU}/cpu{cpu}/cpufreq/cpuinfo_max_freq", "1500000\n")
        node = f"/cpus/cpu@{cpu}"
        tree.tree(node, compatible="arm,cortex-a72", phandle=20 + cpu, next_level_cache=9)
        tree.tree(node, d_cache_size=32 << 10, d_cache_line_size=64, d_cache_sets=256)
        tree.tree(node, i_cache_size=48 << 10, i_cache_line_size=64, i_cache_sets=256)
        tree.link(f"{_CPU}/cpu{cpu}/of_node", f"../../../../firmware/devicetree/base{node}")
    _lists(tree, 4)
    tree.tree("/soc", ranges="", compatible="simple-bus")
    tree.tree("/soc/interrupt-controller@40041000", interrupt_controller="", compatible="arm,gic-400")
    tree.tree("/v3dbus", ranges="", compatible="simple-bus")
    tree.tree("/v3dbus/gpu@7ec04000", compatible="brcm,2711-v3d")
    tree.link("proc/device-tree", "/sys/firmware/devicetree/base")
    tree.write("proc/meminfo", "MemTotal:        1893396 kB\nMemFree:  1000000 kB\nHugepagesize:       2048 kB\n")
    tree.write("proc/sys/kernel/arch", "aarch64\n")
    return tree


def xavier(root: Path) -> Tree:
    """A Jetson AGX Xavier with NVIDIA's kernel (5.10), which counts each cluster of the device tree as a socket."""
    tree = Tree(root)
    tree.tree("", compatible=("nvidia,p2972-0000", "nvidia,tegra194"), model="Jetson-AGX")
    for cpu in range(8):
        node = f"/cpus/cpu@{cpu // 2}0{cpu % 2}"
        tree.cpu(cpu, {"physical_package_id": cpu // 2, "core_id": cpu % 2, "core_cpus_list": cpu}, CARMEL)
        tree.tree(node, compatible="nvidia,tegra194-carmel", phandle=40 + cpu)
        tree.tree(f"/cpus/cpu-map/cluster{cpu // 2}/core{cpu % 2}", cpu=40 + cpu)
        tree.link(f"{_CPU}/cpu{cpu}/of_node", f"../../../../firmware/devicetree/base{node}")
    _lists(tree, 8)
    tree.node(0, "0-7", 32 * GIB, "10", (64 << 10, 2 << 20, 32 << 20, 1 << 30))
    tree.write(f"{_NODE}/online", "0\n")
    tree.tree("/interrupt-controller@3881000", interrupt_controller="", compatible="arm,gic-400")
    tree.tree("/gv11b@17000000", compatible="nvidia,gv11b", status="okay")
    tree.tree("/host1x", ranges="", compatible="nvidia,tegra194-host1x")
    tree.tree("/host1x@13e00000", ranges="", compatible="nvidia,tegra194-host1x")
    tree.tree("/host1x@13e00000/nvdla0@15880000", compatible="nvidia,tegra194-nvdla")
    tree.tree("/host1x@13e00000/vic@15340000", compatible="nvidia,tegra194-vic", status="disabled")
    tree.link("sys/bus/platform/devices/17000000.gv11b/of_node", "../../../../firmware/devicetree/base/gv11b@17000000")
    tree.link("sys/bus/platform/devices/17000000.gv11b/driver", "../../../../bus/platform/drivers/gk20a")
    tree.write("proc/meminfo", "MemTotal:       32479656 kB\nHugepagesize:       2048 kB\n")
    tree.write("proc/sys/kernel/arch", "aarch64\n")
    return tree


def _lists(tree: Tree, cpus: int) -> None:
    for name in ("online", "present", "possible"):
        tree.write(f"{_CPU}/{name}", f"0-{cpus - 1}\n" if cpus > 1 else "0\n")
    tree.write(f"{_CPU}/offline", "\n")


def _madt(gic: int) -> bytes:
    """ACPI 6.5, 5.2.12: the header, a GIC CPU interface, and the distributor with its version."""
    cpu_interface = bytes((0x0B, 80)) + bytes(78)
    distributor = bytes((0x0C, 24)) + bytes(18) + bytes((gic, 0, 0, 0))
    return b"APIC" + bytes(40) + cpu_interface + distributor
