"""A dual-socket Arm server with KVM, emulated: Carmel on it sees the silicon, and VMs are where it says they are.

That they are is read from the machine's own kernel, by its shell.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from carmel.client.objects import JsonObject, condition, dig
from carmel.errors import CarmelError
from tests.daemon import Daemon, is_ready
from tests.system.lab.machine import LabMachine, lab_machine

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


def start(lab: LabMachine, name: str, vcpus: int = 2, **spec: object) -> None:
    lab.create("vm", lab.micro_vm(name, f"carmel.nonce={name}", cpu={"count": vcpus}, **spec))


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


def test_vms_run_under_kvm_each_on_a_node_of_its_own_and_outlive_the_daemon(lab: LabMachine) -> None:
    start(lab, "a")
    start(lab, "b")
    vms = {name: lab.wait_for("vm", name, is_ready) for name in ("a", "b")}
    for name in vms:
        lab.wait_for_console(name, f"ready nonce={name}")
    assert sorted(nodes_of(vm) for vm in vms.values()) == [[0], [1]]
    before = {name: lab.process(vm) for name, vm in vms.items()}
    for name, vm in vms.items():
        [node] = nodes_of(vm)
        process = before[name]
        assert any("/dev/kvm" in device for device in process.devices)
        assert "anon_inode:kvm-vcpu:0" in process.devices
        assert process.vcpus == [CPUS_OF_NODE[node]] * 2
        assert {cpus for _, cpus in process.threads} == {CPUS_OF_NODE[node]}
        assert process.memory_nodes == {node}
        # Every page of its own, and the guest's memory by a policy that holds for what comes later, too.
        assert process.nodes == {node}
        assert [mapping.policy for mapping in process.guest_memory] == [f"bind:{node}"]
        assert sum(process.guest_memory[0].pages.values()) > 16 * MIB_IN_PAGES

    daemon = lab.daemon_pid()
    lab.shell(f"kill -9 {daemon}")
    await_daemon(lab, other_than=daemon)
    for name, vm in vms.items():
        again = lab.wait_for("vm", name, is_ready)
        assert again["status"]["launchID"] == vm["status"]["launchID"]
        after = lab.process(vm)
        assert (after.pid, after.vcpus, after.nodes) == (before[name].pid, before[name].vcpus, before[name].nodes)
        assert f"alive-{name}" in lab.guest_shell(name, f"echo al''ive-{name}")


def await_daemon(lab: LabMachine, other_than: int) -> None:
    """Until init has started another carmeld and that one answers."""
    deadline = time.monotonic() + lab.patience
    while True:
        try:
            lab.client.call("GET", "/readyz")
            if lab.daemon_pid() != other_than:
                return
        except (CarmelError, ValueError):
            assert time.monotonic() < deadline, lab.last_words()
        time.sleep(0.5)


def test_a_vm_wider_than_a_node_sees_two_nodes_as_they_are(lab: LabMachine) -> None:
    start(lab, "wide", vcpus=4, memory={"size": "256Mi"})
    vm = lab.wait_for("vm", "wide", is_ready)
    lab.wait_for_console("wide", "ready nonce=wide")
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


def test_a_repair_moves_a_vm_while_it_runs_and_its_pages_follow(lab: LabMachine) -> None:
    for name in ("a", "b", "c"):
        start(lab, name)
        lab.wait_for("vm", name, is_ready)
    vms = {name: lab.get("vm", name) for name in ("a", "b", "c")}
    crowded = next(node for node in (0, 1) if sum(nodes_of(vm) == [node] for vm in vms.values()) == 2)
    both = [name for name, vm in vms.items() if nodes_of(vm) == [crowded]]
    [alone] = set(vms) - set(both)
    for name in both:
        lab.wait_for_console(name, f"ready nonce={name}")
    # One leaves; the two others stay behind on one node, and share its CPUs for no reason.
    lab.delete("vm", alone)

    def moved(host: JsonObject) -> bool:
        return any(not move.get("error") for move in dig(host, "status", "rebalance", "done") or [])

    host = lab.wait_for("host", lab.name, moved, namespace=None)
    name = host["status"]["rebalance"]["done"][0]["virtualMachine"].rpartition("/")[2]
    assert name in both
    vm = lab.wait_for("vm", name, lambda vm: nodes_of(vm) == [1 - crowded])
    assert vm["status"]["launchID"] == vms[name]["status"]["launchID"]
    process = lab.process(vm)
    assert process.vcpus == [CPUS_OF_NODE[1 - crowded]] * 2
    assert process.nodes == {1 - crowded}
    # What the guest touches from now on is on the new node as well.
    touched = sum(process.guest_memory[0].pages.values())
    lab.guest_shell(name, "dd if=/dev/zero of=/dev/shm/more bs=1M count=40 2>/dev/null")
    later = lab.process(vm)
    assert later.nodes == {1 - crowded}
    assert sum(later.guest_memory[0].pages.values()) > touched + 20 * MIB_IN_PAGES
    [stayed] = set(both) - {name}
    assert lab.process(lab.get("vm", stayed)).nodes == {crowded}


def test_dedicated_cpus_are_nobody_elses(lab: LabMachine) -> None:
    cpu = {"count": 1, "policy": "Dedicated"}
    lab.create("vm", lab.micro_vm("own", "carmel.nonce=own", cpu=cpu))
    own = lab.wait_for("vm", "own", is_ready)
    start(lab, "others", vcpus=4, memory={"size": "256Mi"})
    others = lab.wait_for("vm", "others", is_ready)
    lab.wait_for_console("own", "ready nonce=own")
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
