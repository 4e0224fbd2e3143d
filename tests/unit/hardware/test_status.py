"""What a Host tells of its machine, and what it leaves out where that is too much."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from carmel.cpulist import parse_cpu_list
from carmel.hardware.boards import catalogue, synthetic
from carmel.hardware.model import (
    Cache,
    CacheType,
    Cpu,
    CpuKind,
    Group,
    Hardware,
    NumaNode,
    NvmeController,
    NvmeNamespace,
    PciDevice,
    SrIov,
)
from carmel.hardware.reader import read_hardware
from carmel.hardware.status import hardware_status
from carmel.hardware.status_limit import LARGEST_BYTES
from carmel.resources.host_hardware import HardwareStatus
from tests.unit.hardware.machines import GIB, raspberry_pi_4, server


def size(status: HardwareStatus) -> int:
    return len(status.model_dump_json(by_alias=True, exclude_none=True))


def test_a_server(tmp_path: Path) -> None:
    tree = server(tmp_path, cores=4, cluster=2)
    drive = tree.nvme(0, "0000:01:00.0", 1)
    tree.write("proc/mounts", "/dev/nvme0n1 /srv ext4 rw 0 0\n")
    assert drive
    told = hardware_status(read_hardware(tree.root)).to_json()
    assert told["sockets"] == [
        {"id": 0, "cpus": "0-3", "cores": 4, "clusters": 2, "cpuModel": "Neoverse-N1"},
        {"id": 1, "cpus": "4-7", "cores": 4, "clusters": 2, "cpuModel": "Neoverse-N1"},
    ]
    assert told["cpuKinds"] == [{"name": "Neoverse-N1", "cpus": "0-7", "midr": "0x413fd0c1", "capacity": 1024}]
    assert (told["numaNodes"][1]["cpus"], told["numaNodes"][1]["memoryBytes"]) == ("4-7", 16 * GIB)
    assert told["numaNodes"][1]["distances"] == {"0": 32, "1": 10}
    assert told["clusters"] == ["0-1", "2-3", "4-5", "6-7"]
    assert "cores" not in told
    assert told["caches"][2] == {
        "level": 2,
        "type": "Unified",
        "sizeBytes": 1 << 20,
        "cpus": [str(cpu) for cpu in range(8)],
    }
    assert told["pci"][0] == {
        "address": "0000:01:00.0",
        "classCode": "010802",
        "vendorID": "144d",
        "deviceID": "a808",
        "driver": "nvme",
        "node": 1,
    }
    assert told["nvme"][0]["namespaces"] == [{"name": "nvme0n1", "sizeBytes": 960 * GIB, "usedBy": "mounted at /srv"}]
    assert told["kvm"] == {"present": False, "gicVersion": 3}


def test_threads_are_told_as_cores(tmp_path: Path) -> None:
    status = hardware_status(read_hardware(server(tmp_path, sockets=1, cores=2, threads=2).root))
    assert status.cores == ["0-1", "2-3"]


def test_the_boards_limits_and_quirks(tmp_path: Path) -> None:
    board = hardware_status(read_hardware(raspberry_pi_4(tmp_path).root)).board
    known = catalogue()["raspberry-pi-4b"]
    assert (board.catalogue_id, board.name) == (known.id, known.name)
    assert board.quirks == [*known.limits, *known.quirks]


def test_serial_numbers_of_the_board_are_not_told(recorded: Hardware) -> None:
    told = hardware_status(recorded).model_dump_json()
    assert recorded.board.dmi["product_serial"]
    for name in ("product_serial", "product_uuid", "board_serial"):
        assert recorded.board.dmi[name] not in told


@pytest.mark.parametrize("board", list(catalogue()))
def test_every_board_is_told_in_full(board: str) -> None:
    machine = synthetic(board)
    status = hardware_status(machine)
    assert size(status) <= LARGEST_BYTES
    assert status.remarks == (list(machine.remarks) or None)
    assert len(status.pci or ()) == len(machine.pci)
    assert HardwareStatus.model_validate_json(status.model_dump_json(by_alias=True)) == status


def huge(cpus: int = 1024, functions: int = 2000, nodes: int = 8, drives: int = 24, kinds: int = 1) -> Hardware:
    """Two sockets and caches of every core; half of the PCI functions virtual, an eighth bridges."""
    each = cpus // nodes
    numbers = range(cpus)
    return Hardware(
        architecture="aarch64",
        page_bytes=4096,
        cpus=tuple(Cpu(id=cpu, socket=cpu * 2 // cpus, core=cpu, node=cpu // each) for cpu in numbers),
        nodes=tuple(
            NumaNode(
                id=node,
                cpus=tuple(range(node * each, (node + 1) * each)),
                memory_bytes=256 * GIB,
                distances={other: 10 if other == node else 20 for other in range(nodes)},
            )
            for node in range(nodes)
        ),
        cpu_kinds=tuple(CpuKind(f"Core {kind}", tuple(numbers[kind::kinds])) for kind in range(kinds)),
        sockets=tuple(Group(one, tuple(numbers[one * cpus // 2 : (one + 1) * cpus // 2]), one) for one in range(2)),
        cores=tuple(Group(cpu, (cpu,), cpu * 2 // cpus) for cpu in numbers),
        caches=tuple(
            Cache(level, type_, 1 << 20, (cpu,))
            for cpu in numbers
            for level, type_ in ((1, CacheType.DATA), (1, CacheType.INSTRUCTION), (2, CacheType.UNIFIED))
        )
        + tuple(Cache(3, CacheType.UNIFIED, 32 << 20, tuple(numbers[one : one + 32])) for one in range(0, cpus, 32)),
        pci=tuple(
            PciDevice(
                address=f"{number >> 8:04x}:{number & 0xFF:02x}:00.0",
                vendor=0x15B3,
                device=0x101D,
                class_code=0x060400 if number % 8 == 7 else 0x020000,
                driver="pcieport" if number % 8 == 7 else "mlx5_core",
                node=number % nodes,
                iommu_group=number,
                sriov=SrIov(1, 1) if number % 2 == 0 else None,
                physical_function="0000:00:00.0" if number % 8 in {1, 3, 5} else None,
            )
            for number in range(functions)
        ),
        nvme=tuple(
            NvmeController(
                name=f"nvme{number}",
                model="SAMSUNG MZQL2960HCJR-00A07",
                serial=f"S64FNE0R{number:06}",
                firmware="GDC5902Q",
                pci_address=f"0000:{number % 256:02x}:00.0",
                node=number % nodes,
                namespaces=(NvmeNamespace(f"nvme{number}n1", 960 * GIB, 512, "mounted at /srv"),),
            )
            for number in range(drives)
        ),
    )


def test_a_machine_too_large_to_be_told_in_full() -> None:
    """1,024 CPUs and 2,000 PCI functions. What goes is said, and placement's part stays whole."""
    machine = huge()
    assert len(str(machine.pci)) > LARGEST_BYTES
    status = hardware_status(machine)
    assert size(status) <= LARGEST_BYTES
    told = len(status.pci or ())
    assert status.remarks == [
        "750 virtual functions are left out: each physical one says how many it has.",
        "250 PCI bridges are left out.",
        f"{1000 - told} more PCI functions than the first {told} are left out.",
    ]
    assert size(status) > LARGEST_BYTES - 1024, "no more goes than must"
    assert [parse_cpu_list(node.cpus) for node in status.numa_nodes] == [node.cpus for node in machine.nodes]
    assert len(status.nvme or ()) == 24
    assert sum(len(cache.cpus) for cache in status.caches or ()) == len(machine.caches)


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (huge(functions=10_000), "more PCI functions than the first"),
        (huge(cpus=4096, drives=125), "Caches that belong to a single CPU each are left out."),
        (huge(drives=3000), "Of 3000 nvme 128 are shown."),
        (huge(nodes=1024), "the distances to the nearest eight"),
        (huge(cpus=4096, kinds=2048, nodes=1024), "No machine has so many sockets"),
    ],
    ids=["functions", "caches", "drives", "nodes", "nonsense"],
)
def test_no_machine_is_too_large(machine: Hardware, said: str) -> None:
    status = hardware_status(machine)
    assert size(status) <= LARGEST_BYTES
    assert any(said in remark for remark in status.remarks or ())


def test_a_drive_of_many_namespaces() -> None:
    machine = huge(functions=0)
    many = tuple(NvmeNamespace(f"nvme0n{one}", GIB, 512, "mounted at /" + "x" * 200) for one in range(1, 1000))
    status = hardware_status(replace(machine, nvme=(replace(machine.nvme[0], namespaces=many),)))
    assert size(status) <= LARGEST_BYTES
    assert status.remarks is not None
    assert "Of nvme0's 999 namespaces 128 are shown." in status.remarks
