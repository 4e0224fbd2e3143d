"""PCI functions, NVMe drives and who has them, NICs, accelerators, KVM."""

from __future__ import annotations

from pathlib import Path

import pytest

from carmel.hardware.accelerators import read_accelerators
from carmel.hardware.blocks import Uses, used_by
from carmel.hardware.kvm import read_kvm
from carmel.hardware.model import Accelerator, Hardware, Nic, NvmeNamespace, PciDevice, SrIov
from carmel.hardware.pci import read_pci
from carmel.hardware.reader import read_hardware
from carmel.hardware.sysroot import Sysroot
from tests.unit.hardware.machines import GIB, Tree, server

_DRIVE = "0001:01:00.0"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return server(tmp_path, cores=2, caches=False)


def test_pci_functions(tree: Tree) -> None:
    folder = tree.pci("0000:02:00.0", "15b3:101d", 0x020000, 1, "mlx5_core")
    tree.write(f"{folder}/sriov_totalvfs", "8\n")
    tree.write(f"{folder}/sriov_numvfs", "1\n")
    tree.link(f"{folder}/iommu_group", "../../../kernel/iommu_groups/17")
    virtual = tree.pci("0000:02:00.1", "15b3:101e", 0x020000, None, "vfio-pci")
    tree.link(f"{virtual}/physfn", "../0000:02:00.0")
    tree.pci("10000:00:01.0", "8086:2030", 0x060400)
    assert read_hardware(tree.root).pci == (
        PciDevice("0000:02:00.0", 0x15B3, 0x101D, 0x020000, "mlx5_core", 1, 17, SrIov(8, 1)),
        PciDevice("0000:02:00.1", 0x15B3, 0x101E, 0x020000, "vfio-pci", physical_function="0000:02:00.0"),
        PciDevice("10000:00:01.0", 0x8086, 0x2030, 0x060400),
    )


def test_a_function_of_a_node_that_is_not_there_is_nowhere(tree: Tree) -> None:
    for number in range(3):
        tree.pci(f"0000:0{number}:00.0", "15b3:101d", 0x020000, 7)
    found = read_hardware(tree.root)
    assert {one.node for one in found.pci} == {None}
    assert found.remarks == ("3 PCI functions are said to be at NUMA node 7, which is not there: taken as nowhere.",)


def test_a_function_that_says_nothing_is_left_out(tree: Tree) -> None:
    folder = tree.pci("0000:01:00.0", "15b3:101d", 0x020000)
    tree.remove(f"{folder}/vendor")
    files = Sysroot(tree.root)
    assert read_pci(files, frozenset({0})) == ()
    assert files.remarks == ("PCI function 0000:01:00.0 does not say what it is: left out.",)


# -- NVMe ---------------------------------------------------------------------------------------------------------
def drive_of(found: Hardware) -> NvmeNamespace:
    return found.nvme[0].namespaces[0]


def test_a_free_drive(tree: Tree) -> None:
    tree.nvme(0, _DRIVE, 1)
    found = read_hardware(tree.root)
    (drive,) = found.nvme
    assert (drive.name, drive.model, drive.serial, drive.firmware) == ("nvme0", "SAMSUNG MZQL2960", "S640", "GDC5")
    assert (drive.pci_address, drive.node) == (_DRIVE, 1)
    assert drive.namespaces == (NvmeNamespace("nvme0n1", 960 * GIB, 512, None),)
    assert [found.node_of_device(name) for name in ("nvme0", "nvme0n1", _DRIVE, "nvme9")] == [1, 1, 1, None]


def partition(tree: Tree, drive: str, number: int = 1) -> str:
    name = f"{drive.rpartition('/')[2]}p{number}"
    folder = tree.block(f"{drive}/{name}", f"259:{number}", 100 * GIB)
    tree.write(f"{folder}/partition", f"{number}\n")
    return folder


def test_mounted_by_device_number(tree: Tree) -> None:
    """The source of a root file system can be any name (``/dev/root``); its number is the drive's."""
    drive = tree.nvme(0, _DRIVE)
    partition(tree, drive, 1)
    partition(tree, drive, 2)
    tree.write(
        "proc/self/mountinfo",
        "22 1 259:2 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
        "23 22 0:40 / /srv/my\\040data rw - btrfs /dev/nvme0n1p1 rw\n"
        "24 22 259:2 /sub /very/long/bind rw - ext4 /dev/root rw\n"
        "torn line\n25 22",
    )
    assert drive_of(read_hardware(tree.root)).used_by == "mounted at /srv/my data, mounted at /"


def test_the_first_process_sees_all_mounts(tree: Tree) -> None:
    drive = tree.nvme(0, _DRIVE)
    partition(tree, drive)
    tree.write("proc/self/mountinfo", "22 1 0:1 / / rw - tmpfs tmpfs rw\n")
    tree.write("proc/1/mountinfo", "22 1 259:1 / / rw - ext4 /dev/nvme0n1p1 rw\n")
    assert drive_of(read_hardware(tree.root)).used_by == "mounted at /"


def test_mounted_by_the_old_file(tree: Tree) -> None:
    partition(tree, tree.nvme(0, _DRIVE))
    tree.write("proc/mounts", "/dev/nvme0n1p1 /boot/efi vfat rw 0 0\n")
    assert drive_of(read_hardware(tree.root)).used_by == "mounted at /boot/efi"


def test_swap(tree: Tree) -> None:
    partition(tree, tree.nvme(0, _DRIVE))
    tree.write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/dev/nvme0n1p1  partition 1 0 -2\n")
    assert drive_of(read_hardware(tree.root)).used_by == "swap"


@pytest.mark.parametrize(
    ("uuid", "said"),
    [
        ("LVM-abc", "LVM, mounted at /"),
        ("CRYPT-LUKS2-abc", "encrypted, mounted at /"),
        ("mpath-1", "multipath, mounted at /"),
        ("other", "device mapper vg-root, mounted at /"),
    ],
)
def test_device_mapper(tree: Tree, uuid: str, said: str) -> None:
    drive = tree.nvme(0, _DRIVE)
    mapped = tree.block("sys/devices/virtual/block/dm-0", "253:0", GIB)
    tree.write(f"{mapped}/dm/uuid", f"{uuid}\n")
    tree.write(f"{mapped}/dm/name", "vg-root\n")
    tree.link(f"{drive}/holders/dm-0", "../../../../../../../devices/virtual/block/dm-0")
    tree.write("proc/self/mountinfo", "22 1 253:0 / / rw - ext4 /dev/mapper/vg-root rw\n")
    assert drive_of(read_hardware(tree.root)).used_by == said


def test_raid_and_holders_in_a_circle(tree: Tree) -> None:
    drive = tree.nvme(0, _DRIVE)
    raid = tree.block("sys/devices/virtual/block/md0", "9:0", GIB)
    tree.write(f"{raid}/md/level", "raid1\n")
    tree.link(f"{drive}/holders/md0", "/sys/devices/virtual/block/md0")
    tree.link(f"{raid}/holders/nvme0n1", "/sys/class/block/nvme0n1")
    assert drive_of(read_hardware(tree.root)).used_by == "RAID md0, nvme0n1"


def test_partitions_and_file_systems_that_nobody_uses_are_not_free(tree: Tree) -> None:
    drive = tree.nvme(0, _DRIVE)
    tree.write("run/udev/data/b259:0", "S:disk/by-id/x\nE:ID_FS_TYPE=LVM2_member\n")
    assert drive_of(read_hardware(tree.root)).used_by == "holds LVM2_member, not in use"
    partition(tree, drive)
    assert drive_of(read_hardware(tree.root)).used_by == "partitioned"
    tree.write("run/udev/data/b259:1", "E:ID_FS_TYPE=ext4\n")
    assert drive_of(read_hardware(tree.root)).used_by == "holds ext4, not in use"


def test_many_uses_are_counted(tree: Tree) -> None:
    drive = tree.nvme(0, _DRIVE)
    for number in range(1, 8):
        partition(tree, drive, number)
    tree.write("proc/mounts", "".join(f"/dev/nvme0n1p{one} /data/{one} ext4 rw 0 0\n" for one in range(1, 8)))
    said = drive_of(read_hardware(tree.root)).used_by
    assert said == "mounted at /data/1, mounted at /data/2, mounted at /data/3, mounted at /data/4 and 3 more"


def test_a_namespace_behind_two_controllers(tree: Tree) -> None:
    """Native multipath: ``nvme0c1n1`` is a path, the device is ``nvme0n1`` of the subsystem."""
    for number, address in ((0, "0000:01:00.0"), (1, "0000:02:00.0")):
        folder = f"{tree.pci(address, '144d:a808', 0x010802, 0, 'nvme')}/nvme/nvme{number}"
        tree.write(f"{folder}/model", "dual port\n")
        tree.write(f"{folder}/nvme0c{number}n1/size", "8\n")
        tree.link(f"sys/class/nvme/nvme{number}", f"/{folder}")
    tree.block("sys/devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1", "259:0", GIB)
    found = read_hardware(tree.root)
    assert [[one.name for one in drive.namespaces] for drive in found.nvme] == [["nvme0n1"], ["nvme0n1"]]


def test_a_drive_over_a_network_has_no_address(tree: Tree) -> None:
    tree.write("sys/devices/virtual/nvme-fabrics/ctl/nvme3/model", "Linux\n")
    tree.link("sys/class/nvme/nvme3", "../../devices/virtual/nvme-fabrics/ctl/nvme3")
    (drive,) = read_hardware(tree.root).nvme
    assert (drive.pci_address, drive.node, drive.namespaces) == (None, None, ())


def test_use_of_a_device_that_does_not_exist(tree: Tree) -> None:
    files = Sysroot(tree.root)
    assert used_by(files, "nvme7n1", Uses.read(files)) is None


# -- NICs ---------------------------------------------------------------------------------------------------------
def test_nics(tree: Tree) -> None:
    tree.nic("enp1s0", "0000:01:00.0", 1, 64)
    tree.write("sys/devices/virtual/net/br0/address", "02:00:00:00:00:01\n")
    tree.link("sys/class/net/br0", "../../devices/virtual/net/br0")
    tree.write("sys/class/net/bonding_masters", "\n")
    assert read_hardware(tree.root).nics == (
        Nic(
            "enp1s0",
            "0c:42:a1:00:00:01",
            "mlx5_core",
            100_000,
            link=True,
            node=1,
            pci_address="0000:01:00.0",
            sriov=SrIov(64, 0),
        ),
    )


@pytest.mark.parametrize("speed", ["-1", "4294967295", "", "fast"])
def test_a_nic_without_a_link_has_no_speed(tree: Tree, speed: str) -> None:
    tree.nic("enp1s0", "0000:01:00.0")
    tree.write("sys/class/net/enp1s0/speed", speed)
    tree.remove("sys/class/net/enp1s0/carrier")
    (nic,) = read_hardware(tree.root).nics
    assert (nic.speed_mbps, nic.link) == (None, False)


def test_a_virtio_nic_is_at_its_functions_address(tree: Tree) -> None:
    folder = tree.pci("0000:00:03.0", "1af4:1041", 0x020000, 1, "virtio-pci")
    tree.write(f"{folder}/virtio2/net/eth0/address", "52:54:00:00:00:01\n")
    tree.link(f"{folder}/virtio2/net/eth0/device", "../../../virtio2")
    tree.link(f"{folder}/virtio2/driver", "../../../../bus/virtio/drivers/virtio_net")
    tree.link("sys/class/net/eth0", f"/{folder}/virtio2/net/eth0")
    (nic,) = read_hardware(tree.root).nics
    assert (nic.driver, nic.pci_address, nic.node) == ("virtio_net", "0000:00:03.0", 1)


# -- accelerators -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ids", "class_code", "kind", "name"),
    [
        ("10de:20b0", 0x030200, "GPU", "NVIDIA 10de:20b0"),
        ("1002:73bf", 0x030000, "GPU", "AMD 1002:73bf"),
        ("1a03:2000", 0x030000, "display", "ASPEED 1a03:2000"),
        ("19e5:1711", 0x030000, "display", "HiSilicon 19e5:1711"),
        ("19e5:a250", 0x120000, "accelerator", "HiSilicon 19e5:a250"),
        ("8086:4940", 0x0B4000, "accelerator", "Intel 8086:4940"),
        ("19e5:a255", 0x100000, "crypto", "HiSilicon 19e5:a255"),
        ("15b3:101d", 0x020000, None, ""),
    ],
)
def test_pci_accelerators(tmp_path: Path, ids: str, class_code: int, kind: str | None, name: str) -> None:
    vendor, device = (int(word, 16) for word in ids.split(":"))
    function = PciDevice("0000:01:00.0", vendor, device, class_code, "driver", 1)
    expected = () if kind is None else (Accelerator(kind, name, "0000:01:00.0", "driver", 1),)
    assert read_accelerators(Sysroot(tmp_path), (function,)) == expected


@pytest.mark.parametrize(
    ("compatible", "kind"),
    [
        ("nvidia,ga10b", "GPU"),
        ("nvidia,gp10b", "GPU"),
        ("brcm,2712-v3d", "GPU"),
        ("arm,mali-bifrost", "GPU"),
        ("nvidia,tegra234-nvdec", "video"),
        ("nvidia,tegra194-pva", "vision"),
        ("rockchip,rk3588-rknn-core", "NPU"),
        ("nvidia,tegra194-gpio", None),
        ("arm,malignant", None),
    ],
)
def test_accelerators_of_a_device_tree(tmp_path: Path, compatible: str, kind: str | None) -> None:
    tree = Tree(tmp_path)
    tree.tree("", compatible="x")
    tree.tree("/bus@0", ranges="")
    tree.tree("/bus@0/engine@100", compatible=("vendor,newer", compatible))
    tree.tree("/i2c@0/engine@100", compatible=compatible)
    assert [one.kind for one in read_accelerators(Sysroot(tmp_path), ())] == ([kind] if kind else [])


# -- KVM ----------------------------------------------------------------------------------------------------------
_TIMERS = " 11:   1   GICv3  26 Level     arch_timer\n 12:   0   GICv3  27 Level     kvm guest vtimer\n"


@pytest.mark.parametrize(
    ("interrupts", "release", "command_line", "vhe"),
    [
        (_TIMERS + " 13:   0   GICv3  30 Level     kvm guest ptimer\n", "6.1.0-18-arm64", "", True),
        (_TIMERS, "6.1.0-18-arm64", "", False),
        (_TIMERS, "4.9.253-tegra", "", None),
        (_TIMERS, "", "", None),
        ("", "6.1.0", "quiet kvm-arm.mode=nvhe", False),
        ("", "6.1.0", "kvm-arm.mode=protected ro", False),
        ("", "6.1.0", "", None),
    ],
)
def test_vhe_by_the_timers_that_kvm_takes(
    tmp_path: Path, interrupts: str, release: str, command_line: str, vhe: bool | None
) -> None:
    tree = Tree(tmp_path)
    tree.write("proc/interrupts", interrupts)
    tree.write("proc/sys/kernel/osrelease", release)
    tree.write("proc/cmdline", command_line)
    assert read_kvm(Sysroot(tmp_path), "aarch64").vhe is vhe


@pytest.mark.parametrize(
    ("interrupts", "version"),
    [
        (_TIMERS, 3),
        (" 1:  0  GICv2  30 Level arch_timer\n", 2),
        (" 1:  0  GIC-0  30 Level arch_timer\n", 2),
        ("", None),
    ],
)
def test_gic_by_its_interrupts(tmp_path: Path, interrupts: str, version: int | None) -> None:
    Tree(tmp_path).write("proc/interrupts", interrupts)
    assert read_kvm(Sysroot(tmp_path), "aarch64").gic_version == version


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"APIC",
        b"APIC" + bytes(40),
        b"APIC" + bytes(400),
        b"APIC" + bytes(40) + b"\x0c\x18",
        b"APIC" + bytes(40) + b"\x0c",
    ],
)
def test_a_torn_acpi_table_says_nothing(tmp_path: Path, table: bytes) -> None:
    Tree(tmp_path).write("sys/firmware/acpi/tables/APIC", table)
    assert read_kvm(Sysroot(tmp_path), "aarch64").gic_version is None


@pytest.mark.parametrize(
    ("present", "command_line", "nested"), [(True, "", False), (True, "kvm-arm.mode=nested", None), (False, "", None)]
)
def test_nested_on_arm(tmp_path: Path, present: bool, command_line: str, nested: bool | None) -> None:
    """A recording cannot tell whether the cores can do it, only whether the kernel was allowed to."""
    tree = Tree(tmp_path)
    tree.write("proc/cmdline", command_line)
    if present:
        tree.write("sys/class/misc/kvm/dev", "10:232\n")
    assert read_kvm(Sysroot(tmp_path), "aarch64").nested is nested
