"""The same disk with a kernel that sees both NUMA nodes: QEMU hands it kernel and device tree, without UEFI.

Debian 12's UEFI for QEMU calls its own flash, which lies in no node, memory; Linux then takes the whole machine for
one node. Real servers' firmware does not. So what the host image does with two nodes is proven without UEFI.
"""

from __future__ import annotations

import pytest

from carmel.client.api import Selection
from carmel.client.objects import dig
from tests.full.lab.guests import VM_SECONDS, guest, make_image, vm_status
from tests.full.lab.machine import Machine, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(5400)]
_NAMES = ("left", "right")


@pytest.fixture(scope="module")
def two_nodes(machine: Machine) -> Machine:
    machine.await_ssh()
    machine.shut_down()
    machine.start(direct=machine.boot_files())
    machine.await_ssh()
    machine.await_api()
    return machine


def test_kernel_and_carmel_see_two_nodes_at_a_distance(two_nodes: Machine) -> None:
    assert two_nodes.ssh("cat /sys/devices/system/node/online") == "0-1"
    assert two_nodes.ssh("cat /sys/devices/system/node/node*/distance").split("\n") == ["10 20", "20 10"]
    with two_nodes.client() as client:

        def nodes() -> list[dict[str, object]]:
            host = client.list(client.kind("host"), Selection())["items"][0]
            return list(dig(host, "status", "hardware", "numaNodes") or [])

        found = until(nodes, VM_SECONDS)
    assert [(node["id"], node["cpus"]) for node in found] == [(0, "0-1"), (1, "2-3")]


def test_two_vms_that_fit_no_node_together_get_one_each_by_cpuset(two_nodes: Machine) -> None:
    make_image(two_nodes)
    with two_nodes.client() as client:
        kind = client.kind("vm")
        for name in _NAMES:
            client.create(kind, "default", guest(name, memory={"size": "800Mi"}))
    for name in _NAMES:
        until(
            lambda name=name: vm_status(two_nodes, name).get("powerState") == "PoweredOn",  # type: ignore[misc]
            VM_SECONDS,
            two_nodes.last_words,
        )
    nodes = {name: _effective_nodes(two_nodes, name) for name in _NAMES}
    assert sorted(nodes.values()) == ["0", "1"]
    for name in _NAMES:
        assert vm_status(two_nodes, name)["placement"]["memoryNodes"] == [int(nodes[name])]
        with two_nodes.client() as client:
            client.delete(client.kind("vm"), "default", name)


def _effective_nodes(machine: Machine, name: str) -> str:
    """From the control group of the VM's process; its vCPU threads' own masks agree."""
    with machine.client() as client:
        uid = client.get(client.kind("vm"), "default", name)["metadata"]["uid"]
    pid = machine.ssh(f"pgrep -f 'qemu-system-aarch64.*{uid}'").split()[0]
    group = "/sys/fs/cgroup" + machine.ssh(f"cat /proc/{pid}/cgroup").removeprefix("0::")
    nodes = machine.ssh(f"cat {group}/cpuset.mems.effective")
    cpus = machine.ssh(f"cat {group}/cpuset.cpus.effective")
    assert set(_numbers(cpus)) <= ({0, 1} if nodes == "0" else {2, 3})
    allowed = machine.ssh(f"grep -h Mems_allowed_list /proc/{pid}/task/*/status").split()[1::2]
    assert set(allowed) == {nodes}
    return nodes


def _numbers(text: str) -> list[int]:
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found
