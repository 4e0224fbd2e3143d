"""Places of VMs on this very machine, through the API of a real daemon, with real QEMU and the micro guest."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from carmel.client.api import Selection
from carmel.client.objects import JsonObject, condition, dig
from carmel.cpulist import parse_cpu_list
from carmel.hypervisor.pinning import pinning_abilities
from tests.daemon import Daemon, has_power, is_ready, not_ready_because
from tests.system.daemon.test_virtual_machines import boot, type_at

CPUS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
NO_DEDICATED = pinning_abilities().no_dedicated
can_dedicate = pytest.mark.skipif(NO_DEDICATED is not None or len(CPUS) < 2, reason=NO_DEDICATED or "needs two CPUs")


def this_host(daemon: Daemon) -> JsonObject:
    host: JsonObject
    (host,) = daemon.client.list(daemon.client.kind("host"), Selection())["items"]
    return host


@pytest.fixture
def all_for_vms(daemon: Daemon) -> Iterator[None]:
    """The host keeps no CPU to itself."""
    name = this_host(daemon)["metadata"]["name"]
    daemon.patch("host", name, {"spec": {"placement": {"reservedCpus": ""}}}, None)
    yield
    daemon.patch("host", name, {"spec": {"placement": {"reservedCpus": None}}}, None)


def affinities(pid: int) -> set[tuple[int, ...]]:
    """Of all threads of a process, as the kernel tells them."""
    found = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        allowed = re.search(r"^Cpus_allowed_list:\s*(\S+)", (task / "status").read_text(), re.MULTILINE)
        assert allowed is not None
        found.add(parse_cpu_list(allowed[1]))
    return found


def pid_of(daemon: Daemon, vm: JsonObject) -> int:
    (pid,) = [
        pid for pid in daemon.qemu_pids() if vm["metadata"]["uid"] in Path(f"/proc/{pid}/cmdline").read_text("utf-8")
    ]
    return pid


def vcpu_cpus(vm: JsonObject) -> list[str]:
    return [vcpu["hostCpus"] for vcpu in vm["status"]["placement"]["vcpus"]]


def test_the_host_tells_its_machine(daemon: Daemon) -> None:
    host = this_host(daemon)
    hardware = host["status"]["hardware"]
    online = sum(len(parse_cpu_list(node["cpus"])) for node in hardware["numaNodes"])
    assert online == os.sysconf("SC_NPROCESSORS_ONLN") == host["status"]["capacity"]["cpus"]
    assert hardware["sockets"]
    for type_ in ("HardwareKnown", "PlacementRulesValid"):
        assert condition(host, type_)["status"] == "True", host["status"]["conditions"]
    placement = host["status"]["placement"]
    assert placement["reservedMemoryBytes"] > 0
    assert placement.get("noDedicated") == NO_DEDICATED


def test_a_running_vm_tells_its_place(daemon: Daemon) -> None:
    daemon.create("vm", daemon.micro_vm("w", cpu={"count": 2}))
    vm = daemon.wait_for("vm", "w", is_ready)
    placement = vm["status"]["placement"]
    assert (placement["policy"], [vcpu["id"] for vcpu in placement["vcpus"]]) == ("Shared", [0, 1])
    assert placement["pageSizeBytes"] == os.sysconf("SC_PAGE_SIZE")
    assert placement["reasons"]
    assert "NUMA node" in condition(vm, "Placed")["message"]
    daemon.patch("vm", "w", {"spec": {"powerState": "PoweredOff", "powerOffMode": "Hard"}})
    off = daemon.wait_for("vm", "w", not_ready_because("PoweredOff"))
    assert "placement" not in off["status"]


def test_a_guest_sees_the_numa_of_its_spec(daemon: Daemon) -> None:
    nodes = [
        {"cpus": "0-1", "memory": "96Mi", "distances": [10, 25]},
        {"cpus": "2", "memory": "64Mi", "distances": [25, 10]},
    ]
    vm, _ = boot(daemon, cpu={"count": 3}, memory={"size": "160Mi"}, numa={"nodes": nodes})
    assert [(node["vcpus"], node["memoryBytes"]) for node in vm["status"]["placement"]["guestNodes"]] == [
        ("0-1", 96 * 2**20),
        ("2", 64 * 2**20),
    ]
    tell = "cd /sys/devices/system/node; for n in node*; do echo $n is $(cat $n/cpulist) $(cat $n/distance) end; done"
    type_at(daemon, vm["metadata"]["uid"], tell, "node1 is 2 25 10 end")
    assert "node0 is 0-1 10 25 end" in daemon.wait_for_console("w", "node1 is 2 25 10 end")


def test_a_device_that_is_not_there(daemon: Daemon) -> None:
    daemon.create("vm", daemon.micro_vm("w", placement={"near": ["nvme77"]}))
    vm = daemon.wait_for("vm", "w", not_ready_because("DeviceNotFound"))
    assert "has no device 'nvme77'" in condition(vm, "Ready")["message"]
    assert condition(vm, "Accepted")["status"] == "False"


def test_huge_pages_that_nobody_reserved(daemon: Daemon) -> None:
    pools = this_host(daemon)["status"]["hardware"].get("hugePages") or []
    unreserved = next((pool["sizeBytes"] for pool in pools if pool["total"] == 0), None)
    if unreserved is None:
        pytest.skip("huge pages of every size are reserved here")
    vm = daemon.micro_vm("w", memory={"size": "1Gi", "pageSize": f"{unreserved // 1024}Ki"})
    daemon.create("vm", vm)
    refused = daemon.wait_for("vm", "w", lambda one: condition(one, "Placed").get("reason") == "InsufficientHugePages")
    assert condition(refused, "Ready")["reason"] == "InsufficientHugePages"


@can_dedicate
@pytest.mark.usefixtures("all_for_vms")
def test_cpus_are_dedicated_and_stay_so(daemon: Daemon) -> None:
    """A shared VM that runs anywhere leaves a CPU that another gets for itself; a killed daemon changes nothing."""
    daemon.create("vm", daemon.micro_vm("shared", powerState="Paused"))
    shared = daemon.wait_for("vm", "shared", has_power("Paused"))
    daemon.create("vm", daemon.micro_vm("own", powerState="Paused", cpu={"count": 1, "policy": "Dedicated"}))
    own = daemon.wait_for("vm", "own", has_power("Paused"))
    (cpu,) = parse_cpu_list(vcpu_cpus(own)[0])
    others = tuple(one for one in CPUS if one != cpu)
    shared = daemon.wait_for("vm", "shared", lambda one: parse_cpu_list(vcpu_cpus(one)[0]) == others)
    assert affinities(pid_of(daemon, shared)) == {others}
    assert (cpu,) in affinities(pid_of(daemon, own))
    daemon.restart()
    every = {"count": len(CPUS), "policy": "Dedicated"}
    daemon.create("vm", daemon.micro_vm("late", cpu=every))
    late = daemon.wait_for("vm", "late", not_ready_because("InsufficientCPUs"))
    assert condition(late, "Accepted")["status"] == "True"
    assert vcpu_cpus(daemon.get("vm", "own")) == [str(cpu)]
    assert affinities(pid_of(daemon, shared)) == {others}
    for name in ("own", "shared"):
        daemon.patch("vm", name, {"spec": {"powerOffMode": "Hard"}})
        daemon.delete("vm", name)
        daemon.wait_gone("vm", name)
    late = daemon.wait_for("vm", "late", is_ready)
    assert sorted(vcpu_cpus(late)) == [str(one) for one in CPUS]
    assert dig(this_host(daemon), "status", "placement", "reservedCpus") == ""


@can_dedicate
@pytest.mark.usefixtures("all_for_vms")
def test_a_suspended_vm_comes_back_to_cpus_that_are_free(daemon: Daemon) -> None:
    vm, _ = boot(daemon, cpu={"count": 1, "policy": "Dedicated"}, placement={"rebalance": "Allow"})
    first = vcpu_cpus(vm)
    daemon.patch("vm", "w", {"spec": {"powerState": "Suspended"}})
    daemon.wait_for("vm", "w", has_power("Suspended"))
    dedicated = {"count": 1, "policy": "Dedicated"}
    daemon.create("vm", daemon.micro_vm("other", powerState="Paused", cpu=dedicated))
    other = daemon.wait_for("vm", "other", has_power("Paused"))
    assert vcpu_cpus(other) == first
    daemon.patch("vm", "w", {"spec": {"powerState": "PoweredOn"}})
    back = daemon.wait_for("vm", "w", is_ready)
    assert vcpu_cpus(back) != first
    type_at(daemon, vm["metadata"]["uid"], "echo it is $((6 * 7))", "it is 42")
    assert daemon.wait_for_console("w", "it is 42").count("carmel micro: ready") == 1


def test_rules_that_contradict_the_machine(daemon: Daemon) -> None:
    name = this_host(daemon)["metadata"]["name"]
    daemon.patch("host", name, {"spec": {"placement": {"reservedCpus": "4000", "reservedMemory": "1Pi"}}}, None)
    told = daemon.wait_for(
        "host", name, lambda host: condition(host, "PlacementRulesValid").get("status") == "False", namespace=None
    )
    message = condition(told, "PlacementRulesValid")["message"]
    assert "4000 is no CPU of this machine" in message
    assert "reservedMemory 1Pi leaves nothing" in message
    daemon.create("vm", daemon.micro_vm("w", powerState="Paused"))
    daemon.wait_for("vm", "w", has_power("Paused"))
    daemon.patch("host", name, {"spec": {"placement": {"reservedCpus": None, "reservedMemory": None}}}, None)
    daemon.wait_for(
        "host", name, lambda host: condition(host, "PlacementRulesValid").get("status") == "True", namespace=None
    )
