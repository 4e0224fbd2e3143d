"""The lab ``bare-metal`` as tests see it: a SmartNIC, and a host with nothing of ours on it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from carmel.client.objects import JsonObject, dig
from tests.daemon import Daemon, is_ready
from tests.system.lab.machine import LabMachine, lab_machine
from tests.system.lab.shell import run_in_shell

NIC, HOST, FUNCTION = "lab-bare-metal", "lab-bare-metal-host", "pf0nvme0"
UPLINK, PORT, BOOT = "p0", "host-f0", "boot"
OUTSIDE = "10.99.0.1"
"""In a network namespace on the NIC, behind a veth that is the uplink of the host's network."""
ADDRESS = "10.99.0.11"
GUEST_READY = "carmel micro: ready"
_SECONDS = 120.0
_HEARD = re.compile(r"(\d+) packets received")
_BLOCK = 64 * 1024
_FIRST = 512 * 1024 * 1024 // _BLOCK
"""Behind what the host boots from."""


def is_seen(obj: JsonObject) -> bool:
    """What was wanted last is what the NIC's daemon tells of."""
    return bool(dig(obj, "metadata", "generation") == dig(obj, "status", "observedGeneration"))


@dataclass
class Metal:
    """``outer`` runs both; ``nic`` is the SmartNIC's API and shell. The host has no API."""

    outer: Daemon
    nic: LabMachine

    def host_shell(self, script: str) -> str:
        """What a script prints, run by root on the host."""
        return run_in_shell(self.outer.client, HOST, script, _SECONDS)

    def wait_for_host(self, text: str, *, times: int = 1) -> str:
        return self.outer.wait_for_console(HOST, text, _SECONDS, times=times)

    def pings(self, address: str, *, count: int = 3, words: str = "") -> int:
        """How many of ``count`` pings of the host were answered."""
        found = _HEARD.search(self.host_shell(f"ping -c {count} -W 2 -A {words} {address}"))
        return int(found[1]) if found else 0

    def make_outside(self) -> None:
        """Also after the NIC was started anew, or when it is there."""
        # By its path: the shell has an ip of its own, which can less.
        self.nic.shell(
            "alias ip=/usr/bin/ip\n[ -e /run/netns/out ] || {\n"
            "ip netns add out; ip link add out0 type veth peer name out1 netns out; ip link set out0 up\n"
            f"ip -n out addr add {OUTSIDE}/24 dev out1; ip -n out link set out1 up\n}}"
        )

    def be_outside(self) -> None:
        """The host is on the network behind the veth, with a fixed address, which its port's guard knows."""
        self.make_outside()
        self.nic.patch("network", "lan", {"spec": {"bridge": {"uplinks": ["out0"]}}}, None)
        self.nic.patch("port", PORT, {"spec": {"addresses": [ADDRESS]}})
        self.nic.wait_for("port", PORT, lambda port: is_ready(port) and is_seen(port))
        self.take_address()

    def be_inside(self) -> None:
        """As it came up: behind the NIC's own uplink, and whatever address it has there."""
        self.nic.patch("network", "lan", {"spec": {"bridge": {"uplinks": [UPLINK]}}}, None)
        self.nic.patch("port", PORT, {"spec": {"addresses": None}})
        self.nic.wait_for("port", PORT, lambda port: is_ready(port) and is_seen(port))

    def take_address(self) -> None:
        """A fixed one, which the NIC knows, in the place of that by DHCP."""
        self.host_shell(f"ip addr flush dev eth0; ip addr add {ADDRESS}/24 dev eth0; ip link set eth0 up")

    def port(self) -> JsonObject:
        return self.nic.get("port", PORT)

    def dropped(self) -> int:
        return int(dig(self.port(), "status", "counters", "droppedPackets") or 0)

    def power_cut(self) -> None:
        """The NIC's power goes, and comes back."""
        self.outer.patch("vm", NIC, {"spec": {"powerState": "PoweredOff", "powerOffMode": "Hard"}})
        self.outer.wait_for("vm", NIC, lambda vm: dig(vm, "status", "powerState") == "PoweredOff")
        self.outer.patch("vm", NIC, {"spec": {"powerState": "PoweredOn"}})

    # -- the host's disk ------------------------------------------------------------------------------------------
    def write_blocks(self, first: int, count: int) -> None:
        """Begins; the host says each block that is on its disk."""
        self.host_shell(
            "yes carmel | tr -d '\\n' | head -c 65536 >/tmp/block; "
            f"(n={first}; while [ $n -lt {first + count} ]; do dd if=/tmp/block of=/dev/nvme0n1 bs=64k "
            f"seek=$(({_FIRST} + n)) conv=fsync,notrunc 2>/dev/null || echo bad=$n >/dev/console; "
            "n=$((n + 1)); echo wrote=$n >/dev/console; done) &"
        )

    def check_blocks(self, first: int, count: int) -> None:
        """All of them are there, and the host saw no error."""
        said = self.host_shell(
            "yes carmel | tr -d '\\n' | head -c 65536 >/tmp/block; good=0; echo 3 >/proc/sys/vm/drop_caches; "
            f"n={first}; while [ $n -lt {first + count} ]; do dd if=/dev/nvme0n1 bs=64k skip=$(({_FIRST} + n)) count=1 "
            "2>/dev/null | cmp -s - /tmp/block && good=$((good + 1)); n=$((n + 1)); done; echo good=$good; "
            "dmesg | grep -c 'I/O error' | sed s/^/errors=/"
        )
        assert re.findall(r"good=\d+|errors=\d+", said) == [f"good={count}", "errors=0"], said


@contextlib.contextmanager
def bare_metal(outer: Daemon, home: Path) -> Iterator[Metal]:
    with lab_machine(outer, home, "bare-metal") as nic:
        yield Metal(outer, nic)
