"""A lab machine that switches for its own guests, by a bond of two legs; what is outside is a network namespace of it.

``a`` and ``b`` are in VLAN 10, ``c`` in VLAN 20 with VLAN 10 tagged. Outside, both legs lead to one switch, which is in
VLANs 10, 20 and 30. Frames may have 9000 bytes. Beside that, ``up0`` has an address of the host and leads outside, too.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from carmel.client.objects import JsonObject, dig
from tests.daemon import is_ready
from tests.system.lab.machine import LabMachine

LEGS = ("leg0", "leg1")
HERE, OUTSIDE = "192.0.2.1", "192.0.2.2"
A, B, C = "10.9.10.1", "10.9.10.2", "10.9.10.3"
"""Of the guests in VLAN 10."""
B_IN_20, C_IN_20 = "10.9.20.2", "10.9.20.3"
"""``b`` has an address of VLAN 20, where it is not."""
OUT_10, OUT_20, OUT_30 = "10.9.10.254", "10.9.20.254", "10.9.30.254"
JUMBO, ORDINARY = 9000, 1500
_HEADERS = 28
"""Of IP and ICMP."""

_MAKE_OUTSIDE = f"""
alias ip=/usr/bin/ip
ip netns add out; ip -n out link set lo up
ip -n out link add sw mtu {JUMBO} type bridge; ip -n out link set sw up
for n in 0 1; do ip link add leg$n type veth peer name to$n netns out
ip -n out link set to$n mtu {JUMBO} master sw up; done
for v in 10 20 30; do ip -n out link add link sw name sw$v type vlan id $v
ip -n out addr add 10.9.$v.254/24 dev sw$v; ip -n out link set sw$v up; done
ip link add up0 type veth peer name out0 netns out; ip link set up0 up
ip addr add {HERE}/24 dev up0
ip -n out addr add {OUTSIDE}/24 dev out0; ip -n out link set out0 up
"""
_GIVE = {
    "a": f"ip addr add {A}/24 dev eth0",
    "b": f"ip addr add {B}/24 dev eth0; ip addr add {B_IN_20}/24 dev eth0",
    "c": f"""ip addr add {C_IN_20}/24 dev eth0
for v in 10 30; do ip link add link eth0 name eth0.$v type vlan id $v; ip link set eth0.$v up; done
ip addr add {C}/24 dev eth0.10; ip addr add 10.9.30.3/24 dev eth0.30""",
}


@dataclass(frozen=True, slots=True)
class Site:
    """The lab machine with its guests up."""

    lab: LabMachine

    def shell(self, script: str) -> str:
        """On the lab machine, with the ``ip`` that can do all of it."""
        return self.lab.shell(f"alias ip=/usr/bin/ip\n{script}")

    def network(self, name: str, **spec: object) -> JsonObject:
        """Made, and settled one way or the other."""
        self.lab.create("network", {"metadata": {"name": name}, "spec": spec}, None)

        def settled(one: JsonObject) -> bool:
            return bool(dig(one, "status", "observedGeneration") == one["metadata"]["generation"])

        return self.lab.wait_for("network", name, settled, namespace=None)

    def remove(self, network: str) -> None:
        self.lab.delete("network", network, None)
        self.lab.wait_gone("network", network, None)

    def take_down(self) -> None:
        self.lab.delete_all_vms()
        for name in ("ten", "twenty"):
            self.remove(name)
        self.shell("ip netns del out")

    def answered(self, vm: str, *pings: str, seconds: int = 1) -> list[bool]:
        """Of each ping (an address, perhaps with options) of a guest, whether it was answered. Two tries each: the
        first may go by what the guest knew before."""
        lines = (f"ping -c 2 -W {seconds} -A {words} >/dev/null 2>&1 && echo ye''s || echo n''o" for words in pings)
        return [word == "yes" for word in self.lab.guest_shell(vm, "\n".join(lines)).split()]

    def is_on(self, address: str, link: str) -> bool:
        return f"inet {address}/" in self.shell(f"ip addr show dev {link}")

    def reached_from_outside(self) -> bool:
        return "2 packets received" in self.shell(f"ip netns exec out busybox ping -c 2 -W 5 {HERE}")

    def ours(self) -> set[str]:
        """Links that are Carmel's."""
        return set(re.findall(r"^\d+: ([^:@]+)", self.shell("ip -o link show group 4410700"), re.MULTILINE))


def big(address: str, mtu: int) -> str:
    """A ping that makes packets of ``mtu`` bytes."""
    return f"-s {mtu - _HEADERS} {address}"


def eventually(holds: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Of what nobody tells: asked again until it is so. Each question takes its time as it is."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
    return True


def bring_up(lab: LabMachine) -> Site:
    here = Site(lab)
    lab.shell(_MAKE_OUTSIDE)
    for name, vlan in (("ten", 10), ("twenty", 20)):
        bridge = {"uplinks": list(LEGS), "bond": "active-backup", "vlan": vlan}
        made = here.network(name, provider="bridge", bridge=bridge, mtu=JUMBO)
        assert is_ready(made), made["status"]
    limits = {"egress": {"kbps": 1_000_000}}
    _start(lab, "a", "ten")
    _start(lab, "b", "ten", cpus=2)
    _start(lab, "c", "twenty", trunk=[10], limits=limits)
    for name, script in _GIVE.items():
        lab.wait_for("vm", name, is_ready)
        lab.wait_for_console(name, f"ready nonce={name}")
        lab.guest_shell(name, f"ip addr flush dev eth0\n{script}")
    return here


def _start(lab: LabMachine, name: str, network: str, *, cpus: int = 1, **nic: object) -> None:
    nics = [{"name": "eth0", "networkRef": {"name": network}, **nic}]
    vm = lab.micro_vm(name, f"quiet carmel.nonce={name}", networks=nics, cpu={"count": cpus}, restartPolicy="Never")
    vm["metadata"]["labels"] = {"app": name}
    lab.create("vm", vm)
