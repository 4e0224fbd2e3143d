"""A dual-socket Arm server with KVM, emulated: Carmel on it sees the silicon, and VMs are where it says they are.

That they are is read from the machine's own kernel, by its shell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from carmel.client.objects import JsonObject, condition, dig
from tests.daemon import Daemon, is_ready
from tests.system.lab.machine import LabMachine, Process, lab_machine

pytestmark = pytest.mark.timeout(1200)
MIB_IN_PAGES = 256
CPUS_OF_NODE = {0: frozenset({0, 1}), 1: frozenset({2, 3})}


@pytest.fixture(scope="module")
def machine(outer: Daemon, home: Path) -> Iterator[LabMachine]:
    with lab_machine(outer, home, "dual-socket") as running:
        running.make_micro_image()
        yield running


@pytest.fixture
def lab(machine: LabMachine) -> Iterator[LabMachine]:
    yield machine
    machine.delete_all_vms()


def start(lab: LabMachine, name: str, vcpus: int = 2, **spec: object) -> JsonObject:
    """A VM that runs. Its guest may still be booting; one at a time is quickest, they share two emulated CPUs each."""
    lab.create("vm", lab.micro_vm(name, f"carmel.nonce={name}", cpu={"count": vcpus}, **spec))
    return lab.wait_for("vm", name, is_ready)


def start_and_boot(lab: LabMachine, name: str, vcpus: int = 2, **spec: object) -> JsonObject:
    vm = start(lab, name, vcpus, **spec)
    lab.wait_for_console(name, f"ready nonce={name}")
    return vm


def nodes_of(vm: JsonObject) -> list[int]:
    return list(dig(vm, "status", "placement", "memoryNodes") or [])


def test_carmel_inside_sees_what_the_machine_is(lab: LabMachine) -> None:
    hardware = lab.wait_for("host", lab.name, is_ready, namespace=None)["status"]["hardware"]
    assert len(hardware["sockets"]) == 2
    assert [node["cpus"] for node in hardware["numaNodes"]] == ["0-1", "2-3"]
    assert [node["distances"] for node in hardware["numaNodes"]] == [{"0": 10, "1": 20}, {"0": 20, "1": 10}]
    told = lab.shell("cat /sys/devices/system/node/node*/distance; cat /sys/block/nvme0n1/size").split()
    assert told == ["10", "20", "20", "10", str(2**30 // 512)]
    [drive] = hardware["nvme"]
    assert (drive["name"], drive["namespaces"]) == ("nvme0", [{"name": "nvme0n1", "sizeBytes": 2**30}])
    assert hardware["kvm"]["gicVersion"] == 3
    # As people see it, from the outer host.
    picture = lab.cli("--context", lab.name, "host", "--ascii")
    assert all(words in picture for words in ("Socket 0", "Socket 1", "Node 1", "nvme0", "Neoverse-N1"))


def test_vms_live_on_their_nodes_outlive_the_daemon_and_are_moved(lab: LabMachine) -> None:
    """One story, as each guest takes its time to boot: two VMs on two nodes, carmeld killed, a third VM, a repair."""
    vms = {name: start_and_boot(lab, name) for name in ("a", "b")}
    assert sorted(nodes_of(vm) for vm in vms.values()) == [[0], [1]]
    before = {name: lab.process(vm) for name, vm in vms.items()}
    for name, vm in vms.items():
        assert_held(before[name], nodes_of(vm)[0])

    daemon = lab.daemon_pid()
    lab.shell(f"kill -9 {daemon}")
    lab.await_daemon(other_than=daemon)
    for name, vm in vms.items():
        again = lab.wait_for("vm", name, is_ready)
        assert again["status"]["launchID"] == vm["status"]["launchID"]
        after = lab.process(vm)
        assert (after.pid, after.vcpus, after.nodes) == (before[name].pid, before[name].vcpus, before[name].nodes)
        assert f"alive-{name}" in lab.guest_shell(name, f"echo al''ive-{name}")

    third = start_and_boot(lab, "c")
    [crowded] = nodes_of(third)
    [neighbour] = [name for name, vm in vms.items() if nodes_of(vm) == [crowded]]
    [alone] = {"a", "b"} - {neighbour}
    assert_moved(lab, {neighbour: vms[neighbour], "c": third}, leaves=alone, crowded=crowded)


def assert_held(process: Process, node: int) -> None:
    """KVM; each thread on the node's CPUs; each page of its own on the node, and a policy for those that come later."""
    assert any(device.endswith("/dev/kvm") for device in process.devices)
    assert "anon_inode:kvm-vcpu:0" in process.devices
    assert process.vcpus == [CPUS_OF_NODE[node]] * 2
    assert {cpus for _, cpus in process.threads} == {CPUS_OF_NODE[node]}
    assert process.memory_nodes == {node}
    assert process.nodes == {node}
    assert [mapping.policy for mapping in process.guest_memory] == [f"bind:{node}"]
    assert sum(process.guest_memory[0].pages.values()) > 16 * MIB_IN_PAGES


def assert_moved(lab: LabMachine, both: Mapping[str, JsonObject], *, leaves: str, crowded: int) -> None:
    """The two are on one node and share its CPUs; when the other node's VM leaves, one of them goes there, running."""
    lab.delete("vm", leaves)

    def moved(host: JsonObject) -> bool:
        return any(not move.get("error") for move in dig(host, "status", "rebalance", "done") or [])

    lab.wait_for("host", lab.name, moved, namespace=None)
    found = {name: lab.wait_for("vm", name, is_ready) for name in both}
    [name] = [name for name, vm in found.items() if nodes_of(vm) == [1 - crowded]]
    [stayed] = set(both) - {name}
    assert found[name]["status"]["launchID"] == both[name]["status"]["launchID"]
    process = lab.process(found[name])
    assert_held(process, 1 - crowded)
    assert_held(lab.process(found[stayed]), crowded)
    # What the guest touches from now on is on the new node as well.
    touched = sum(process.guest_memory[0].pages.values())
    lab.guest_shell(name, "dd if=/dev/zero of=/dev/shm/more bs=1M count=40 2>/dev/null")
    later = lab.process(found[name])
    assert later.nodes == {1 - crowded}
    assert sum(later.guest_memory[0].pages.values()) > touched + 20 * MIB_IN_PAGES


def test_a_vm_wider_than_a_node_sees_two_nodes_as_they_are(lab: LabMachine) -> None:
    vm = start_and_boot(lab, "wide", vcpus=4, memory={"size": "256Mi"})
    assert nodes_of(vm) == [0, 1]
    seen = lab.guest_shell(
        "wide", "cd /sys/devices/system/node; cat online node*/cpulist node*/distance; nproc"
    ).split()
    assert seen == ["0-1", "0-1", "2-3", "10", "20", "20", "10", "4"]
    process = lab.process(vm)
    assert process.vcpus == [CPUS_OF_NODE[0]] * 2 + [CPUS_OF_NODE[1]] * 2
    # Each node of the guest is memory of its own, on the node that its vCPUs are on, and nowhere else.
    assert sorted((mapping.policy, set(mapping.pages)) for mapping in process.guest_memory) == [
        ("bind:0", {0}),
        ("bind:1", {1}),
    ]


def test_dedicated_cpus_are_nobody_elses(lab: LabMachine) -> None:
    lab.create("vm", lab.micro_vm("own", cpu={"count": 1, "policy": "Dedicated"}))
    own = lab.wait_for("vm", "own", is_ready)
    others = start(lab, "others", vcpus=4, memory={"size": "256Mi"})
    process = lab.process(own)
    [[cpu_of_own]] = process.vcpus
    assert all(cpu_of_own not in cpus for name, cpus in process.threads if not name.startswith("CPU"))
    assert all(cpu_of_own not in cpus for _, cpus in lab.process(others).threads)
    # More than there is: a sentence that says so, and a machine that goes on.
    lab.create("vm", lab.micro_vm("greedy", cpu={"count": 4, "policy": "Dedicated"}))
    refused = lab.wait_for("vm", "greedy", lambda vm: condition(vm, "Ready").get("status") == "False" and _tells(vm))
    assert "CPU" in condition(refused, "Ready")["message"]


def _tells(vm: JsonObject) -> bool:
    return bool(condition(vm, "Ready").get("message"))
