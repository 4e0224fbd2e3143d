"""Whole machines: servers, single boards, big.LITTLE, threads, holes, no NUMA, x86-64, and this very machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from carmel.cpulist import parse_cpu_list
from carmel.hardware import other_system
from carmel.hardware.model import Cache, CacheType, Firmware, FirmwareInterface, HugePages
from carmel.hardware.reader import read_hardware
from tests.unit.hardware.machines import CORTEX_A72, GIB, NEOVERSE_N1, Tree, raspberry_pi_4, server, xavier

_CPU = "sys/devices/system/cpu"


def test_a_dual_socket_server(tmp_path: Path) -> None:
    found = read_hardware(server(tmp_path, nodes=2, cores=8, cluster=4).root)
    assert [(one.id, one.cpus) for one in found.sockets] == [(0, tuple(range(8))), (1, tuple(range(8, 16)))]
    assert [one.cpus for one in found.clusters] == [tuple(range(first, first + 4)) for first in (0, 4, 8, 12)]
    assert [one.id for one in found.clusters] == [0, 100, 200, 300]
    assert [(one.id, one.cpus, one.memory_bytes) for one in found.nodes] == [
        (node, tuple(range(4 * node, 4 * node + 4)), 16 * GIB) for node in range(4)
    ]
    assert [list(one.distances.values()) for one in found.nodes] == [
        [10, 12, 32, 32],
        [12, 10, 32, 32],
        [32, 32, 10, 12],
        [32, 32, 12, 10],
    ]
    assert [(kind.name, kind.capacity) for kind in found.cpu_kinds] == [("Neoverse-N1", 1024)]
    assert found.huge_pages == tuple(HugePages(size, 0, 0) for size in (64 << 10, 2 << 20, 32 << 20, 1 << 30))
    assert (found.architecture, found.page_bytes, found.kvm.gic_version) == ("aarch64", 4096, 3)
    assert found.firmware == Firmware(interface=FirmwareInterface.ACPI)
    assert found.dies == ()
    assert found.remarks == ()


def test_threads_share_a_core_and_clusters_of_one_core_are_none(tmp_path: Path) -> None:
    found = read_hardware(server(tmp_path, sockets=1, cores=4, threads=2, cluster=1).root)
    assert [one.cpus for one in found.cores] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert found.clusters == ()
    assert found.remarks == ()


def test_dies(tmp_path: Path) -> None:
    tree = server(tmp_path, sockets=1, cores=4)
    for cpu in range(4):
        tree.write(f"{_CPU}/cpu{cpu}/topology/die_id", f"{cpu // 2}\n")
    assert [(one.id, one.cpus) for one in read_hardware(tree.root).dies] == [(0, (0, 1)), (1, (2, 3))]


def test_caches_and_who_shares_them(tmp_path: Path) -> None:
    tree = server(tmp_path, sockets=1, cores=2, caches=False)
    for cpu in range(2):
        tree.cache(cpu, 0, 1, "Data", "32K", str(cpu))
        tree.cache(cpu, 3, 3, "Unified", "8M", "0-1")
    assert read_hardware(tree.root).caches == (
        Cache(1, CacheType.DATA, 32 << 10, (0,), 64, 4),
        Cache(1, CacheType.DATA, 32 << 10, (1,), 64, 4),
        Cache(3, CacheType.UNIFIED, 8 << 20, (0, 1), 64, 4),
    )


def test_a_raspberry_pi(tmp_path: Path) -> None:
    """Without NUMA, ACPI or caches in sysfs, and /proc/device-tree an absolute link."""
    found = read_hardware(raspberry_pi_4(tmp_path).root)
    assert [(node.id, node.cpus, node.memory_bytes, node.distances) for node in found.nodes] == [
        (0, (0, 1, 2, 3), 1893396 << 10, {0: 10})
    ]
    assert [(kind.name, kind.max_frequency_khz) for kind in found.cpu_kinds] == [("Cortex-A72", 1_500_000)]
    assert [(one.cpus, one.socket) for one in found.clusters] == [((0, 1, 2, 3), 0)]
    assert Cache(2, CacheType.UNIFIED, 1 << 20, (0, 1, 2, 3), 64, 16) in found.caches
    assert [(one.type, one.size_bytes, one.ways) for one in found.caches if one.cpus == (3,)] == [
        (CacheType.DATA, 32 << 10, 2),
        (CacheType.INSTRUCTION, 48 << 10, 3),
    ]
    assert (found.kvm.gic_version, found.firmware.interface) == (2, FirmwareInterface.DEVICE_TREE)
    assert (found.board.product, found.board.catalogue_id) == ("Raspberry Pi 4 Model B Rev 1.4", "raspberry-pi-4b")
    assert found.board.compatible == ("raspberrypi,4-model-b", "brcm,bcm2711")
    assert [(one.kind, one.source) for one in found.accelerators] == [("GPU", "/v3dbus/gpu@7ec04000")]
    assert found.remarks == ()


def test_a_xavier_has_one_socket_whatever_its_kernel_counts(tmp_path: Path) -> None:
    found = read_hardware(xavier(tmp_path).root)
    assert [one.cpus for one in found.sockets] == [tuple(range(8))]
    assert [one.cpus for one in found.clusters] == [(0, 1), (2, 3), (4, 5), (6, 7)]
    assert [one.cpus for one in found.cores] == [(cpu,) for cpu in range(8)]
    assert [kind.name for kind in found.cpu_kinds] == ["Carmel"]
    assert (found.kvm.gic_version, found.board.catalogue_id) == (2, "jetson-agx-xavier")
    assert {(one.kind, one.source, one.driver) for one in found.accelerators} == {
        ("GPU", "/gv11b@17000000", "gk20a"),
        ("NPU", "/host1x@13e00000/nvdla0@15880000", None),
    }
    assert found.remarks == (
        "The kernel counts 4 sockets, one for each cluster: sockets were taken from the device tree.",
    )


def test_big_and_little(tmp_path: Path) -> None:
    tree = server(tmp_path, sockets=1, cores=6)
    for cpu in range(4):
        tree.cpu(cpu, {}, 0x410FD034, cpu_capacity=485)
    for cpu in (4, 5):
        tree.cpu(cpu, {}, CORTEX_A72, cpu_capacity=1024)
    found = read_hardware(tree.root)
    assert [(kind.name, kind.cpus, kind.capacity) for kind in found.cpu_kinds] == [
        ("Cortex-A72", (4, 5), 1024),
        ("Cortex-A53", (0, 1, 2, 3), 485),
    ]
    assert [cpu.kind for cpu in found.cpus] == [1, 1, 1, 1, 0, 0]


def test_a_favoured_core_is_no_other_kind_but_a_slow_one_is(tmp_path: Path) -> None:
    tree = server(tmp_path, sockets=1, cores=4)
    for cpu, capacity in enumerate((1024, 980, 820, 400)):
        tree.cpu(cpu, {}, NEOVERSE_N1, cpu_capacity=capacity)
    kinds = read_hardware(tree.root).cpu_kinds
    assert [(kind.cpus, kind.capacity) for kind in kinds] == [((0, 1, 2), 1024), ((3,), 400)]


def test_midr_from_cpuinfo_where_sysfs_has_none(tmp_path: Path) -> None:
    tree = server(tmp_path, sockets=1, cores=2)
    for cpu in range(2):
        tree.remove(f"{_CPU}/cpu{cpu}/regs")
    block = "CPU implementer\t: 0x50\nCPU architecture: 8\nCPU variant\t: 0x3\nCPU part\t: 0x000\nCPU revision\t: 2\n\n"
    tree.write("proc/cpuinfo", "".join(f"processor\t: {cpu}\nBogoMIPS\t: 80.00\n{block}" for cpu in range(2)))
    (kind,) = read_hardware(tree.root).cpu_kinds
    assert (kind.name, kind.variant, kind.revision) == ("eMAG", 3, 2)


def test_offline_cpus_and_holes(tmp_path: Path) -> None:
    tree = server(tmp_path, sockets=1, cores=8)
    tree.write(f"{_CPU}/online", "0,2-3,6\n")
    tree.write(f"{_CPU}/present", "0-7\n")
    for cpu in (1, 4, 5, 7):
        tree.remove(f"{_CPU}/cpu{cpu}/topology")
        tree.remove(f"{_CPU}/cpu{cpu}/cache")
    found = read_hardware(tree.root)
    assert [cpu.id for cpu in found.cpus] == [0, 2, 3, 6]
    assert found.offline_cpus == (1, 4, 5, 7)
    assert found.nodes[0].cpus == (0, 2, 3, 6)
    assert found.remarks == ()


def test_nodes_without_memory_and_without_cpus(tmp_path: Path) -> None:
    tree = server(tmp_path, cores=2)
    tree.node(1, "2-3", 0, "32 10 17")
    tree.node(4, "", 64 * GIB, "40 17 10")
    tree.node(0, "0-1", 16 * GIB, "10 32 40")
    tree.write("sys/devices/system/node/online", "0-1,4\n")
    found = read_hardware(tree.root)
    assert [(node.id, node.cpus, node.memory_bytes) for node in found.nodes] == [
        (0, (0, 1), 16 * GIB),
        (1, (2, 3), 0),
        (4, (), 64 * GIB),
    ]
    assert found.nodes[2].distances == {0: 40, 1: 17, 4: 10}
    assert found.remarks == ()


def test_huge_pages_of_nodes_and_machine(tmp_path: Path) -> None:
    tree = server(tmp_path)
    for path, total, free in (("node0", 5, 2), ("node1", 3, 3)):
        folder = f"sys/devices/system/node/{path}/hugepages/hugepages-1048576kB"
        tree.write(f"{folder}/nr_hugepages", f"{total}\n")
        tree.write(f"{folder}/free_hugepages", f"{free}\n")
    found = read_hardware(tree.root)
    assert found.nodes[0].huge_pages[-1] == HugePages(1 << 30, 5, 2)
    assert found.huge_pages[-1] == HugePages(1 << 30, 8, 5)
    tree.write("sys/kernel/mm/hugepages/hugepages-16777216kB/nr_hugepages", "1\n")
    tree.write("sys/kernel/mm/hugepages/hugepages-16777216kB/free_hugepages", "1\n")
    assert read_hardware(tree.root).huge_pages == (HugePages(16 << 30, 1, 1),)


@pytest.mark.parametrize(
    ("default_kib", "page"), [(2048, 4096), (32768, 16384), (524288, 65536)], ids=["4K", "16K", "64K"]
)
def test_the_page_of_a_recording_is_known_by_its_huge_page(tmp_path: Path, default_kib: int, page: int) -> None:
    tree = server(tmp_path)
    tree.write("proc/meminfo", f"MemTotal: 1000 kB\nHugepagesize:   {default_kib} kB\n")
    assert read_hardware(tree.root).page_bytes == page


def test_an_x86_machine(tmp_path: Path) -> None:
    """With efficient cores, a name of its model, and no word for clusters."""
    tree = Tree(tmp_path)
    for cpu in range(4):
        tree.cpu(
            cpu, {"physical_package_id": 0, "core_id": cpu, "die_id": 0, "cluster_id": 65535, "core_cpus_list": cpu}
        )
    tree.write(f"{_CPU}/online", "0-3\n")
    tree.write("sys/devices/cpu_core/cpus", "0-1\n")
    tree.write("sys/devices/cpu_atom/cpus", "2-3\n")
    block = "vendor_id\t: GenuineIntel\nmodel name\t: Intel(R) Core(TM) i5-1240P\nflags\t\t: fpu vmx\n\n"
    tree.write("proc/cpuinfo", "".join(f"processor\t: {cpu}\n{block}" for cpu in range(4)))
    tree.write("proc/meminfo", "MemTotal: 16000000 kB\nMemFree: 1000 kB\nHugepagesize: 2048 kB\n")
    for name, word in {"sys_vendor": "LENOVO", "product_name": "21BV", "bios_vendor": "LENOVO"}.items():
        tree.write(f"sys/class/dmi/id/{name}", f"{word}\n")
    tree.write("sys/firmware/efi/fw_platform_size", "64\n")
    tree.write("sys/firmware/acpi/tables/APIC", b"APIC")
    tree.write("sys/class/misc/kvm/dev", "10:232\n")
    tree.write("sys/module/kvm_intel/parameters/nested", "Y\n")
    found = read_hardware(tree.root)
    assert found.architecture == "x86_64"
    assert [(kind.name, kind.cpus) for kind in found.cpu_kinds] == [
        ("Intel(R) Core(TM) i5-1240P", (0, 1)),
        ("Intel(R) Core(TM) i5-1240P (efficient cores)", (2, 3)),
    ]
    assert found.clusters == ()
    assert (found.kvm.present, found.kvm.nested, found.kvm.gic_version) == (True, True, None)
    assert found.firmware == Firmware(vendor="LENOVO", uefi=True, interface=FirmwareInterface.ACPI)
    assert found.remarks == ("Nothing says what architecture the machine has: taken to be x86_64 by its CPUs.",)


@pytest.mark.parametrize(
    ("words", "vendor", "product"),
    [
        ({"sys_vendor": "WIWYNN", "product_name": "Mt.Jade"}, "WIWYNN", "Mt.Jade"),
        ({"sys_vendor": "To be filled by O.E.M.", "board_vendor": "ADLINK"}, "ADLINK", None),
        ({"product_name": "Default string", "board_name": "X13"}, None, "X13"),
        ({"product_name": " \x1b[2JEvil\nname "}, None, "[2JEvil name"),
        ({}, None, None),
    ],
)
def test_board_by_smbios(tmp_path: Path, words: dict[str, str], vendor: str | None, product: str | None) -> None:
    tree = server(tmp_path)
    for name, word in words.items():
        tree.write(f"sys/class/dmi/id/{name}", word)
    board = read_hardware(tree.root).board
    assert (board.vendor, board.product) == (vendor, product)


def test_this_machine() -> None:
    found = read_hardware()
    assert found.page_bytes == os.sysconf("SC_PAGE_SIZE")
    if sys.platform == "linux":
        online = parse_cpu_list(Path("/sys/devices/system/cpu/online").read_text("utf-8"))
        assert tuple(cpu.id for cpu in found.cpus) == online
        assert found.memory_bytes > 0
        assert sorted(cpu for node in found.nodes for cpu in node.cpus) == list(online)


def test_a_machine_without_linux() -> None:
    found = other_system.read_hardware()
    assert len(found.cpus) == os.cpu_count()
    assert found.memory_bytes > 0
    assert found.nodes[0].cpus == found.sockets[0].cpus == found.cpu_kinds[0].cpus
    assert "says little of its machine" in found.remarks[0]
