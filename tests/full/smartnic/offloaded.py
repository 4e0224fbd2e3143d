"""Two guests on functions of the SmartNIC, a network of the NIC's own, and an outside behind its uplink.

The outside is a network namespace on the NIC behind a veth, which is the uplink. The NIC trusts its host with nothing
(``Restricted``): networks, ports and policies are put there by ``carmel smartnic sync`` or by the NIC's own API.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from carmel.client.objects import JsonObject, dig
from tests.daemon import is_ready, not_ready_because
from tests.full.smartnic import generator
from tests.full.smartnic.pair import NIC, Pair

OUTSIDE = "10.99.0.1"
ADDRESSES = {"a": "10.99.0.11", "b": "10.99.0.12"}
NETWORK = "blue"
_HEARD = re.compile(r"(\d+) packets received")


@dataclass(frozen=True, slots=True)
class Offloaded:
    """The lab with both guests up."""

    pair: Pair

    def pings(self, name: str, address: str, *, count: int = 3, words: str = "") -> int:
        """How many of ``count`` pings of a guest were answered."""
        said = self.pair.host.guest_shell(name, f"ping -c {count} -W 2 -A {words} {address}")
        found = _HEARD.search(said)
        return int(found[1]) if found else 0

    def port(self, name: str) -> JsonObject:
        return self.pair.nic.get("port", f"{name}-eth0")

    def interface(self, name: str) -> str:
        """The representor of a guest's port, by the kernel's name of it now."""
        return str(dig(self.port(name), "status", "interface"))

    def bridge(self) -> str:
        return str(dig(self.pair.nic.get("network", NETWORK, None), "status", "interface"))

    def nic_counts(self, interface: str) -> tuple[int, int]:
        """Packets that came in from the function, and that went out to it, by the NIC's own kernel."""
        folder = f"/sys/class/net/{interface}/statistics"
        received, sent = self.pair.nic.shell(f"cat {folder}/rx_packets {folder}/tx_packets").split()
        return int(received), int(sent)

    def sync(self) -> str:
        return self.pair.host.cli("--context", self.pair.host.name, "smartnic", "sync", NIC, "--yes")

    def make_outside(self) -> None:
        """Also after the NIC was started anew."""
        # By its path: the shell has an ip of its own, which can less.
        self.pair.nic.shell(
            "alias ip=/usr/bin/ip\nip netns add out; ip link add out0 type veth peer name out1 netns out\n"
            f"ip link set out0 up; ip -n out addr add {OUTSIDE}/24 dev out1; ip -n out link set out1 up"
        )


def bring_up(pair: Pair, folder: Path) -> Offloaded:
    """As its administrators do: network and VMs on the host, then what they ask for on the NIC."""
    here = Offloaded(pair)
    here.make_outside()
    pair.host.make_micro_image()
    module_bytes = generator.make_image(pair.host, folder)
    pair.host.wait_for("smartnic", NIC, is_ready, namespace=None)
    spec = {"provider": "bridge", "bridge": {"uplinks": ["out0"]}, "dataPlane": "SmartNIC"}
    pair.host.create("network", {"metadata": {"name": NETWORK}, "spec": spec}, None)
    for name, address in ADDRESSES.items():
        nics = [{"name": "eth0", "networkRef": {"name": NETWORK}, "addresses": [address]}]
        vm = pair.host.micro_vm(name, f"carmel.nonce={name}", networks=nics, disks=[generator.DISK])
        vm["metadata"]["labels"] = {"app": name}
        pair.host.create("vm", vm)
    # Nobody of the NIC's has said yes so far.
    pair.host.wait_for("vm", "a", not_ready_because("WaitingForNetwork"))
    here.sync()
    for name, address in ADDRESSES.items():
        pair.host.wait_for("vm", name, is_ready)
        pair.host.wait_for_console(name, f"ready nonce={name}")
        pair.nic.wait_for("port", f"{name}-eth0", is_ready)
        pair.host.guest_shell(name, f"ip addr flush dev eth0; ip addr add {address}/24 dev eth0; ip link set eth0 up")
        generator.load(pair.host, name, module_bytes)
    return here
