"""Host networks on a machine whose kernel has all of it, under KVM: VLANs, a stateful firewall, uplinks taken over.

The lab machine's own Carmel switches; what is outside of it is a network namespace of the lab machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from carmel.client.api import Selection
from carmel.client.objects import JsonObject, condition, dig
from tests.daemon import Daemon, is_ready, not_ready_because
from tests.system.lab.machine import LabMachine, lab_machine

pytestmark = pytest.mark.timeout(2400)

HERE, OUTSIDE = "192.0.2.1", "192.0.2.2"
_MAKE_OUTSIDE = f"""
ip netns add out; ip link add up0 type veth peer name out0; ip link set out0 netns out
ip link set up0 up; ip -n out link set lo up; ip -n out link set out0 up; ip -n out addr add {OUTSIDE}/24 dev out0
ip -n out link add link out0 name out7 type vlan id 7; ip -n out link set out7 up
ip -n out addr add 203.0.113.1/24 dev out7
"""


@pytest.fixture(scope="module")
def lab(outer: Daemon, home: Path) -> Iterator[LabMachine]:
    with lab_machine(outer, home, "raspberry-pi-4") as running:
        running.make_micro_image()
        running.shell(_MAKE_OUTSIDE)
        yield running


@pytest.fixture
def clean(lab: LabMachine) -> Iterator[LabMachine]:
    """An uplink without addresses before, and nothing of Carmel's in the kernel afterwards."""
    lab.shell("ip addr flush dev up0")
    yield lab
    lab.delete_all_vms()
    for kind, namespace in (("firewallpolicy", "default"), ("network", None)):
        path = lab.client.kind(kind)
        for one in lab.client.list(path, Selection(namespace))["items"]:
            if one["metadata"]["name"] != "default":
                lab.delete(kind, one["metadata"]["name"], namespace)
                lab.wait_gone(kind, one["metadata"]["name"], namespace)
    assert lab.shell("ip -o link show group 4410700").strip() == ""


def network(lab: LabMachine, name: str, **spec: object) -> JsonObject:
    lab.create("network", {"metadata": {"name": name}, "spec": spec}, None)

    def settled(one: JsonObject) -> bool:
        return bool(dig(one, "status", "observedGeneration") == one["metadata"]["generation"])

    return lab.wait_for("network", name, settled, namespace=None)


def boot(lab: LabMachine, name: str, on: str, **nic: object) -> None:
    nics = [{"name": "eth0", "networkRef": {"name": on}, **nic}]
    vm = lab.micro_vm(name, f"carmel.nonce={name}", networks=nics)
    vm["metadata"]["labels"] = {"app": name}
    lab.create("vm", vm)
    lab.wait_for_console(name, f"ready nonce={name}")


def does(lab: LabMachine, vm: str, command: str) -> bool:
    return lab.guest_shell(vm, f"{command} >/dev/null 2>&1 && echo ye''s").strip() == "yes"


def eventually(holds: Callable[[], bool]) -> bool:
    return any(holds() for _ in range(30))


def give(lab: LabMachine, vm: str, address: str) -> None:
    lab.guest_shell(vm, f"ip addr flush dev eth0; ip addr add {address}/24 dev eth0")


def is_on(lab: LabMachine, address: str, link: str) -> bool:
    return f"inet {address}" in lab.shell(f"ip addr show dev {link}")


def test_a_policy_drops_and_allows_on_ports_with_vhost(clean: LabMachine) -> None:
    lab = clean
    lab.shell(f"ip addr add {HERE}/24 dev up0")
    assert is_ready(network(lab, "inner", provider="nat", nat={"subnet": "10.77.0.0/24"}))
    boot(lab, "w", "inner")
    assert "vhostfds" in lab.shell("tr '\\0' ' ' </proc/$(pidof qemu-system-aarch64)/cmdline")
    ping = f"ping -c 1 -W 1 {OUTSIDE}"
    assert does(lab, "w", ping)
    spec: JsonObject = {"vmSelector": {"matchLabels": {"app": "w"}}, "policyTypes": ["Egress"], "egress": []}
    lab.create("firewallpolicy", {"metadata": {"name": "w"}, "spec": spec})
    lab.wait_for("firewallpolicy", "w", lambda one: is_ready(one) and dig(one, "status", "ports") == 1)
    assert eventually(lambda: not does(lab, "w", ping))
    rule = {"peers": [{"ipBlock": {"cidr": f"{OUTSIDE}/32"}}], "ports": [{"protocol": "ICMP"}]}
    lab.patch("firewallpolicy", "w", {"spec": {"egress": [rule]}})
    assert eventually(lambda: does(lab, "w", ping))
    counted = lab.wait_for("firewallpolicy", "w", lambda one: bool(dig(one, "status", "counters")))
    assert counted["status"]["counters"][0]["packets"] >= 1


def test_guests_are_in_their_vlans_and_their_addresses_are_learned(clean: LabMachine) -> None:
    lab = clean
    assert is_ready(network(lab, "lan", provider="bridge", bridge={"uplinks": ["up0"], "vlan": 7}))
    boot(lab, "a", "lan")
    boot(lab, "b", "lan", vlan=8)
    give(lab, "a", "203.0.113.7")
    give(lab, "b", "203.0.113.8")
    assert does(lab, "a", "ping -c 1 -W 5 203.0.113.1")
    assert not does(lab, "b", "ping -c 1 -W 2 203.0.113.1")
    learned = lab.wait_for("port", "a-eth0", lambda port: bool(dig(port, "status", "addresses")))
    assert learned["status"]["addresses"] == ["203.0.113.7"]
    # Into the other's VLAN, while it runs.
    lab.patch("vm", "b", {"spec": {"networks": [{"name": "eth0", "networkRef": {"name": "lan"}, "vlan": 7}]}})
    assert eventually(lambda: does(lab, "b", "ping -c 1 -W 2 203.0.113.1"))
    assert does(lab, "b", "ping -c 1 -W 5 203.0.113.7")
    # Not as another.
    lab.guest_shell("b", "ip addr add 203.0.113.99/24 dev eth0; ip link set eth0 address 52:54:00:99:99:99")
    assert not does(lab, "b", "ping -c 1 -W 2 203.0.113.1")


def test_a_takeover_is_confirmed_and_given_back(clean: LabMachine) -> None:
    lab = clean
    lab.shell(f"ip addr add {HERE}/24 dev up0")
    refused = network(lab, "plain", provider="bridge", bridge={"uplinks": ["up0"]})
    assert condition(refused, "Ready")["reason"] == "UplinkInUse"
    lab.delete("network", "plain", None)
    lab.wait_gone("network", "plain", None)
    bridge = {"uplinks": ["up0"], "takeover": True, "confirmSeconds": 300}
    waiting = network(lab, "lan", provider="bridge", bridge=bridge)
    assert condition(waiting, "Ready")["reason"] == "WaitingForConfirmation"
    assert "stays as it is" in lab.cli("--context", lab.name, "network", "confirm", "lan")
    confirmed = lab.wait_for("network", "lan", is_ready, namespace=None)
    assert is_on(lab, HERE, confirmed["status"]["interface"])
    assert "1 packets received" in lab.shell(f"ip netns exec out ping -c 1 -W 5 {HERE}")
    lab.delete("network", "lan", None)
    lab.wait_gone("network", "lan", None)
    assert is_on(lab, HERE, "up0")


def test_what_nobody_confirms_comes_back_whatever_becomes_of_the_daemon(clean: LabMachine) -> None:
    lab = clean
    lab.shell(f"ip addr add {HERE}/24 dev up0")
    # Long enough that the daemon is dead before it is over.
    bridge = {"uplinks": ["up0"], "takeover": True, "confirmSeconds": 40}
    waiting = network(lab, "lan", provider="bridge", bridge=bridge)
    assert is_on(lab, HERE, dig(waiting, "status", "interface"))
    lab.shell(f"kill -9 {lab.daemon_pid()}")
    assert eventually(lambda: is_on(lab, HERE, "up0"))
    back = lab.wait_for("network", "lan", not_ready_because("RolledBack"), namespace=None)
    assert dig(back, "status", "takeover", "phase") == "RolledBack"
    assert "1 packets received" in lab.shell(f"ip netns exec out ping -c 1 -W 5 {HERE}")
