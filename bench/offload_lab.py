"""The emulated host and its SmartNIC as the measurement of offload needs them: two guests, one a way, and an outside.

The outside is a network namespace on the NIC, behind a veth that stands for its uplink. Guest ``soft`` is switched by
the host (tap, vhost-net where the host has it, bridge, firewall), whose bridge leads out by a function of the NIC;
guest ``off`` has a function itself. A policy with as many rules as asked for is in force where each is switched.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.instructions import Counter, counting
from carmel.client.objects import JsonObject, condition, dig
from tests.daemon import is_ready, running_daemon
from tests.full.smartnic import generator
from tests.system.lab.machine import GUEST_SECONDS, LabMachine, lab_machine

OUTSIDE, ADDRESSES = "10.99.0.1", {"soft": "10.99.0.11", "off": "10.99.0.12"}
_UPLINK, _TRUNK = "out0", "pf0vf3"
_TRUNK_MAC = "52:54:00:ca:01:03"


@dataclass(frozen=True, slots=True)
class World:
    """By the guests' names: ``macs`` of theirs, the ``pids`` of their QEMUs, and on the NIC the ``interfaces`` that
    their traffic passes. ``outside_mac``: of the namespace's interface."""

    host: LabMachine
    nic: LabMachine
    macs: dict[str, str]
    pids: dict[str, int]
    interfaces: dict[str, str]
    outside_mac: str

    def run(self, name: str, script: str, *, in_guest: bool) -> str:
        """What a script prints in the guest ``name``, or else in the namespace outside."""
        if in_guest:
            return self.host.guest_shell(name, script)
        run = "/usr/bin/ip netns exec out sh /tmp/outside"
        return self.nic.shell(f"cat >/tmp/outside <<'OUTSIDE'\n{script}\nOUTSIDE\n{run}")


@contextmanager
def world(rules: int) -> Iterator[World]:
    """Both machines with all that is said above, and nothing of it afterwards."""
    with (
        counting() as environ,
        running_daemon(environ=environ) as outer,
        tempfile.TemporaryDirectory() as home,
        lab_machine(outer, Path(home), "smartnic") as host,
    ):
        nic = LabMachine(outer, host.cli, "lab-smartnic-nic", {"HOME": home})
        with closing(nic.client):
            yield _furnish(host, nic, rules, Path(home))
            host.delete_all_vms()


def _furnish(host: LabMachine, nic: LabMachine, rules: int, folder: Path) -> World:
    for each in (host, nic):
        Counter.of(each).tell_kernel(each)
    host.make_micro_image()
    module_bytes = generator.make_image(host, folder)
    outside_mac = nic.shell(
        "alias ip=/usr/bin/ip\nip netns add out\n"
        f"ip link add {_UPLINK} type veth peer name out1 netns out; ip link set {_UPLINK} up;"
        f"ip -n out addr add {OUTSIDE}/24 dev out1; ip -n out link set out1 up; ip -n out link set lo up;"
        "ip -n out link show out1 | sed -n 's/.*ether \\([0-9a-f:]*\\).*/\\1/p'; modprobe pktgen"
    ).strip()
    bridge = {"uplinks": [_UPLINK]}
    nic.patch("smartnic", nic.name, {"spec": {"trust": "Full"}}, namespace=None)
    host.create("network", _network("off", bridge, dataPlane="SmartNIC"), namespace=None)
    nic.wait_for("network", "off", is_ready, namespace=None)
    # The host's own way out: a function that stays with it, in the same network.
    trunk = {
        "networkRef": {"name": "off"}, "vmRef": {"name": "host"}, "nic": "trunk", "owner": "host",
        "mac": _TRUNK_MAC, "function": _TRUNK, "sourceGuard": False,
    }  # fmt: skip
    nic.create("port", {"metadata": {"name": "host-trunk"}, "spec": trunk})
    nic.wait_for("port", "host-trunk", is_ready)
    own = host.shell(f"grep -l {_TRUNK_MAC} /sys/class/net/*/address | cut -d/ -f5").strip()
    host.create("network", _network("soft", {"uplinks": [own]}), namespace=None)
    host.wait_for("network", "soft", is_ready, namespace=None)
    host.create("firewallpolicy", _policy(rules))
    # Waiting for a guest that is idle would be counted as the host's own work.
    host.shell("echo 0 >/sys/module/kvm/parameters/halt_poll_ns")
    macs, pids = {}, {}
    for name, address in ADDRESSES.items():
        nics = [{"name": "eth0", "networkRef": {"name": name}, "addresses": [address]}]
        vm = host.micro_vm(name, f"carmel.nonce={name}", networks=nics, disks=[generator.DISK])
        vm["metadata"]["labels"] = {"bench": "offload"}
        host.create("vm", vm)
        running = host.wait_for("vm", name, is_ready, seconds=GUEST_SECONDS)
        host.wait_for_console(name, f"ready nonce={name}")
        pids[name] = host.process(running).pid
        macs[name] = str(dig(running, "status", "networks", 0, "mac"))
        _set_up_guest(host, name, address, module_bytes)
    _await_policy(host, nic)
    ports = {"soft": "host-trunk", "off": "off-eth0"}
    interfaces = {name: str(dig(nic.get("port", port), "status", "interface")) for name, port in ports.items()}
    return World(host, nic, macs, pids, interfaces, outside_mac)


def _network(name: str, bridge: JsonObject, **more: object) -> JsonObject:
    return {"metadata": {"name": name}, "spec": {"provider": "bridge", "bridge": bridge, **more}}


def _policy(rules: int) -> JsonObject:
    """All but the last are about others; the last one lets the measurement through."""
    others = [
        {
            "peers": [{"ipBlock": {"cidr": f"172.16.{index // 250}.{index % 250 + 1}/32"}}],
            "ports": [{"port": 1000 + index}],
        }
        for index in range(rules - 1)
    ]
    ours: JsonObject = {"peers": [{"ipBlock": {"cidr": "10.99.0.0/24"}}]}
    spec = {
        "vmSelector": {"matchLabels": {"bench": "offload"}},
        "ingress": [*others, ours],
        "egress": [*others, ours],
    }
    return {"metadata": {"name": "bench"}, "spec": spec}


def _set_up_guest(host: LabMachine, name: str, address: str, module_bytes: int) -> None:
    generator.load(host, name, module_bytes)
    host.guest_shell(
        name,
        f"ip addr flush dev eth0; ip addr add {address}/24 dev eth0; ip link set eth0 up; ping -c 1 -W 5 {OUTSIDE}",
    )


def _await_policy(host: LabMachine, nic: LabMachine) -> None:
    """In force where each guest is switched."""
    for machine in (host, nic):
        machine.wait_for("firewallpolicy", "bench", lambda one: condition(one, "Effective").get("status") == "True")
