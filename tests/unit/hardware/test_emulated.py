"""Recordings of an emulated dual-socket machine: what a real kernel shows of device tree, ACPI, GIC, KVM and NVMe."""

from __future__ import annotations

import pytest

from carmel.hardware.model import Firmware, FirmwareInterface, Hardware, Kvm, Nic, NvmeNamespace
from carmel.hardware.reader import read_hardware
from tests.unit.hardware.recorded import unpack


@pytest.fixture(scope="module")
def by_device_tree(tmp_path_factory: pytest.TempPathFactory) -> Hardware:
    return read_hardware(unpack("emulated-dual-socket", tmp_path_factory.mktemp("machine")))


@pytest.fixture(scope="module")
def by_acpi(tmp_path_factory: pytest.TempPathFactory) -> Hardware:
    return read_hardware(unpack("emulated-acpi", tmp_path_factory.mktemp("machine")))


def test_sockets_clusters_and_nodes(by_device_tree: Hardware) -> None:
    """Cluster and core ids begin anew in each socket."""
    found = by_device_tree
    assert [(one.id, one.cpus) for one in found.sockets] == [(0, (0, 1, 2, 3)), (1, (4, 5, 6, 7))]
    assert [(one.id, one.cpus) for one in found.clusters] == [(0, (0, 1)), (1, (2, 3)), (0, (4, 5)), (1, (6, 7))]
    assert [one.cpus for one in found.cores] == [(cpu,) for cpu in range(8)]
    assert [(one.id, one.cpus, one.distances) for one in found.nodes] == [
        (0, (0, 1, 2, 3), {0: 10, 1: 20}),
        (1, (4, 5, 6, 7), {0: 20, 1: 10}),
    ]
    assert 900 << 20 < found.memory_bytes < 1024 << 20
    assert found.remarks == ()


def test_acpi_names_sockets_and_clusters_as_its_tables_do(by_acpi: Hardware) -> None:
    assert [(one.id, one.cpus) for one in by_acpi.sockets] == [(36, (0, 1, 2, 3)), (176, (4, 5, 6, 7))]
    assert [one.cpus for one in by_acpi.clusters] == [(0, 1), (2, 3), (4, 5), (6, 7)]


def test_caches_that_nobody_described_are_left_out(by_acpi: Hardware) -> None:
    """The kernel shows an L1 that eight cores in two sockets share."""
    assert by_acpi.caches == ()
    assert by_acpi.remarks == ("The firmware does not describe the caches: they are left out.",)


def test_kvm_with_the_kernel_at_el2(by_device_tree: Hardware, by_acpi: Hardware) -> None:
    """GIC by the device tree and by the MADT."""
    assert by_device_tree.kvm == by_acpi.kvm == Kvm(present=True, gic_version=3, vhe=True, nested=False)


def test_firmware_and_board(by_device_tree: Hardware, by_acpi: Hardware) -> None:
    assert by_device_tree.firmware == Firmware(interface=FirmwareInterface.DEVICE_TREE)
    assert by_device_tree.board.compatible == ("linux,dummy-virt",)
    assert (by_acpi.firmware.uefi, by_acpi.firmware.interface) == (True, FirmwareInterface.ACPI)
    assert (by_acpi.board.vendor, by_acpi.board.product) == ("QEMU", "QEMU Virtual Machine")


@pytest.mark.parametrize(("machine", "address"), [("by_device_tree", "0000:00:01.0"), ("by_acpi", "0000:41:00.0")])
def test_nvme(request: pytest.FixtureRequest, machine: str, address: str) -> None:
    found: Hardware = request.getfixturevalue(machine)
    (drive,) = found.nvme
    assert (drive.name, drive.model, drive.serial, drive.pci_address) == ("nvme0", "QEMU NVMe Ctrl", "CARMEL1", address)
    assert drive.namespaces == (NvmeNamespace("nvme0n1", 256 << 20, 512, None),)


def test_nic(by_device_tree: Hardware) -> None:
    assert by_device_tree.nics == (
        Nic("eth0", "52:54:00:12:34:56", "virtio_net", link=True, pci_address="0000:00:03.0"),
    )


def test_kinds_and_pages(by_device_tree: Hardware, by_acpi: Hardware) -> None:
    for found in (by_device_tree, by_acpi):
        assert [(kind.name, kind.cpus) for kind in found.cpu_kinds] == [("Neoverse-N1", tuple(range(8)))]
        assert (found.architecture, found.page_bytes) == ("aarch64", 4096)
        assert [pool.size_bytes for pool in found.huge_pages] == [64 << 10, 2 << 20, 32 << 20, 1 << 30]
