"""What the guest is told of its memory and CPUs, and what of it is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from carmel.errors import Refused
from carmel.hardware.model import Kvm
from carmel.hypervisor.arch import architecture
from carmel.hypervisor.commandline import Platform, Start, command_line
from carmel.hypervisor.config import Accelerator, CpuConfig, GuestNodeConfig, MachineConfig, Pinning
from carmel.hypervisor.diagnosis import explain, explain_start
from carmel.hypervisor.failures import QEMUFailed
from carmel.hypervisor.guestmemory import check, memory_arguments
from carmel.units import GIB, MIB
from tests.unit.hypervisor.cases import PATHS, SOCKETS, abilities, layers, machine, nodes, shaped

NUMA = shaped("numa")


def values(words: list[str], option: str) -> list[str]:
    return [words[index + 1] for index, word in enumerate(words) if word == option]


def test_memory_without_wishes_is_qemus_own() -> None:
    assert memory_arguments(machine(), "ram") == ["-m", "size=524288k"]


def test_one_node_keeps_the_machines_name_for_its_memory() -> None:
    words = memory_arguments(shaped("bound"), "mach-virt.ram")
    backend = json.loads(values(words, "-object")[0])
    assert backend["id"] == "mach-virt.ram"
    assert (backend["host-nodes"], backend["policy"]) == ([1], "bind")
    assert values(words, "-machine") == ["memory-backend=mach-virt.ram"]
    assert values(words, "-numa") == []


def test_huge_pages_are_filled_before_the_start() -> None:
    backend = json.loads(values(memory_arguments(shaped("hugepages"), "ram"), "-object")[0])
    assert backend["qom-type"] == "memory-backend-memfd"
    assert (backend["hugetlb"], backend["hugetlbsize"], backend["prealloc"]) == (True, 2 * MIB, True)
    assert "host-nodes" not in backend


def test_every_vcpu_and_every_distance_is_named() -> None:
    assert values(memory_arguments(NUMA, "ram"), "-numa") == [
        "node,nodeid=0,cpus=0,cpus=3,memdev=ram0",
        "node,nodeid=1,cpus=1-2,memdev=ram1",
        "dist,src=0,dst=1,val=20",
        "dist,src=1,dst=0,val=21",
    ]


def test_a_whole_dual_socket_machine() -> None:
    """2 x 80 cores and 512 GiB, as on a Mt. Jade."""
    both = tuple(
        GuestNodeConfig(tuple(range(first, first + 80)), 256 * GIB, distances, host_node=node)
        for node, (first, distances) in enumerate(((0, (10, 20)), (80, (20, 10))))
    )
    cpu = CpuConfig(count=160, sockets=2, clusters=40, cores=2, threads=1)
    config = replace(machine(), cpu=cpu, memory_bytes=512 * GIB, numa=both)
    platform = Platform(architecture("aarch64"), abilities("7.2"), Accelerator.KVM, None, Kvm(True, 3))
    argv = list(command_line(config, platform, PATHS, Start("0", SOCKETS), layers()).argv)
    assert values(argv, "-smp") == ["cpus=160,sockets=2,clusters=40,cores=2,threads=1"]
    assert "node,nodeid=1,cpus=80-159,memdev=ram1" in values(argv, "-numa")


def refused(config: MachineConfig, accelerator: Accelerator = Accelerator.TCG, kvm: Kvm | None = None) -> Refused:
    platform = Platform(architecture("aarch64"), abilities("7.2"), accelerator, None, kvm or Kvm(present=True))
    with pytest.raises(Refused) as caught:
        command_line(config, platform, PATHS, Start("0", SOCKETS), layers())
    assert caught.value.field
    return caught.value


def cpu(**changes: Any) -> MachineConfig:
    config = machine()
    return replace(config, cpu=replace(config.cpu, **changes))


def test_a_topology_whose_product_is_not_the_count() -> None:
    error = refused(cpu(cores=3))
    assert error.code == "InvalidTopology"
    assert "is 6" in error.message
    assert "4 vCPUs" in error.message


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"numa": nodes(256 * MIB, 128 * MIB)}, "adds up to 384Mi"),
        ({"numa": (replace(NUMA.numa[0], vcpus=(0, 1, 3)), NUMA.numa[1])}, "exactly one"),
        ({"numa": (replace(NUMA.numa[0], vcpus=(0,)), NUMA.numa[1])}, "exactly one"),
        ({"numa": (replace(NUMA.numa[0], vcpus=(0, 7)), NUMA.numa[1])}, "exactly one"),
        ({"numa": (replace(NUMA.numa[0], distances=(10,)), NUMA.numa[1])}, "node 0 needs a distance"),
        ({"numa": (NUMA.numa[0], replace(NUMA.numa[1], distances=(20, 11)))}, "node 1 needs a distance"),
        ({"numa": (NUMA.numa[0], replace(NUMA.numa[1], distances=(255, 10)))}, "between 10 and 254"),
        ({"numa": nodes(512 * MIB, 0)}, "adds up"),
        ({"page_bytes": GIB}, "pages of 1Gi"),
        ({"numa": nodes(511 * MIB, 1 * MIB), "page_bytes": 2 * MIB}, "pages of 2Mi"),
    ],
)
def test_numa_that_does_not_fit_together(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(Refused, match=word) as caught:
        check(replace(machine(), **changes))
    assert caught.value.code in ("InvalidNUMA", "InvalidPageSize")


@pytest.mark.parametrize(
    ("config", "accelerator", "kvm", "code"),
    [
        (cpu(nested=True), Accelerator.KVM, Kvm(True, 3, nested=False), "NestedVirtualizationUnavailable"),
        (cpu(nested=True), Accelerator.KVM, Kvm(True, 3, nested=None), "NestedVirtualizationUnavailable"),
        (cpu(nested=True), Accelerator.HVF, None, "NestedVirtualizationUnavailable"),
        (cpu(gic_version=3), Accelerator.KVM, Kvm(True, 2), "UnknownGICVersion"),
        (cpu(gic_version=2), Accelerator.KVM, Kvm(True, None), "UnknownGICVersion"),
        (cpu(count=9, cores=9, clusters=1, gic_version=2), Accelerator.TCG, None, "TooManyCPUs"),
        (cpu(count=9, cores=9, clusters=1), Accelerator.KVM, Kvm(True, 2), "TooManyCPUs"),
    ],
)
def test_what_the_accelerator_cannot_do(
    config: MachineConfig, accelerator: Accelerator, kvm: Kvm | None, code: str
) -> None:
    assert refused(config, accelerator, kvm).code == code


def test_x86_has_nodes_but_no_gic() -> None:
    x86 = architecture("x86_64")
    assert x86.machine_options(NUMA, Accelerator.TCG, Kvm(False))["hmat"] == "off"
    with pytest.raises(Refused) as caught:
        x86.machine_options(cpu(gic_version=2), Accelerator.TCG, Kvm(False))
    assert caught.value.code == "UnknownGICVersion"
    intel = replace(abilities("7.2"), cpu_models=frozenset({"max"}))
    assert x86.cpu_model(cpu(nested=True), intel, Accelerator.TCG) == "max,svm=on"


@pytest.mark.parametrize(
    ("model", "expected"), [(None, "neoverse-n1"), ("max", "max,pauth=off,sve=off"), ("cortex-a72", "cortex-a72")]
)
def test_a_guest_that_nests_gets_a_cpu_that_nests_well(model: str | None, expected: str) -> None:
    strategy = architecture("aarch64")
    assert strategy.cpu_model(cpu(nested=True, model=model), abilities("7.2"), Accelerator.TCG) == expected


ALONE = Pinning(((0,),) * 4, (0,), (0,), exclusive=True)


@pytest.mark.parametrize(
    ("vcpus", "host_cpus", "pinning", "mode"),
    [(8, 2, None, "multi"), (9, 2, None, "single"), (9, 2, ALONE, "multi"), (64, 16, None, "multi")],
)
def test_many_emulated_vcpus_share_a_thread(vcpus: int, host_cpus: int, pinning: Pinning | None, mode: str) -> None:
    config = replace(cpu(count=vcpus, sockets=1, clusters=1, cores=vcpus), pinning=pinning)
    platform = Platform(architecture("aarch64"), abilities("7.2"), Accelerator.TCG, None, host_cpus=host_cpus)
    argv = command_line(config, platform, PATHS, Start("0", SOCKETS), layers()).argv
    assert f"tcg,thread={mode}" in argv


@pytest.mark.parametrize(
    ("shape", "words", "code", "named"),
    [
        (
            "hugepages",
            "unable to map backing store for guest RAM: Cannot allocate memory",
            "InsufficientHugePages",
            "32",
        ),
        ("numa-hugepages", "qemu_prealloc_mem: preallocating memory failed", "InsufficientHugePages", "on node 0-1"),
        ("hugepages", "failed to create memfd with flags 0x40000007: No such device", "UnknownPageSize", "2Mi"),
        ("bound", "cannot bind memory to host NUMA nodes: Invalid argument", "MemoryNodeUnavailable", "node 1"),
        ("numa", "Invalid host-nodes value: 200", "MemoryNodeUnavailable", "node 0-1"),
    ],
)
def test_qemus_words_about_memory(shape: str, words: str, code: str, named: str) -> None:
    error = explain_start(shaped(shape), ["2026-01-02T03:04:05.000000Z qemu-system-aarch64: " + words], "exit status 1")
    assert error.code == code
    assert named in error.message
    assert error.hint


def test_words_about_huge_pages_without_any_are_quoted() -> None:
    error = explain_start(machine(), ["unable to map backing store for guest RAM"], "exit status 1")
    assert isinstance(error, QEMUFailed)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("Number of SMP CPUs requested (9) exceeds max CPUs supported by machine 'mach-virt' (8)", "TooManyCPUs"),
        (
            "mach-virt: host kernel KVM does not support providing Virtualization extensions to the guest CPU",
            "NestedVirtualizationUnavailable",
        ),
    ],
)
def test_qemus_words_about_cpus(words: str, code: str) -> None:
    assert explain("QEMU", [words], "exit status 1").code == code
