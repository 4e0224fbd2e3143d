"""Two guests on functions of the SmartNIC, a network of the NIC's own, and an outside behind its uplink.

The outside is a network namespace on the NIC behind a veth, which is the uplink. The NIC trusts its host with nothing
(``Restricted``): networks, ports and policies are put there by ``carmel smartnic sync`` or by the NIC's own API.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from carmel.client.objects import JsonObject, dig
from tests.daemon import is_ready, not_ready_because
from tests.full.smartnic.pair import NIC, Pair

OUTSIDE = "10.99.0.1"
ADDRESSES = {"a": "10.99.0.11", "b": "10.99.0.12"}
NETWORK = "blue"
_SENT = re.compile(r"(\d+) packets transmitted, (\d+) packets received")
_HEARD = re.compile(r"(\d+) packets received")


@dataclass(slots=True)
class Pinged:
    sent: int = 0
    heard: int = 0

    @property
    def lost(self) -> int:
        """The last one may have been on its way."""
        return max(0, self.sent - self.heard - 1)


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

    def make_guest(self, name: str, address: str, **spec: object) -> None:
        """One on the network, which waits until the NIC has its port."""
        nics = [{"name": "eth0", "networkRef": {"name": NETWORK}, "addresses": [address]}]
        vm = self.pair.host.micro_vm(name, f"carmel.nonce={name}", networks=nics, **spec)
        vm["metadata"]["labels"] = {"app": name}
        self.pair.host.create("vm", vm)
        # What is synced is what there is by then.
        self.pair.host.wait_for("port", f"{name}-eth0", lambda _port: True)

    def await_guest(self, name: str, address: str, *, starts: int = 1) -> None:
        """Until it is up, for the ``starts``th time; it has its address then."""
        self.pair.host.wait_for("vm", name, is_ready)
        self.pair.host.wait_for_console(name, f"ready nonce={name}", times=starts)
        self.pair.nic.wait_for("port", f"{name}-eth0", is_ready)
        self.set_address(name, "eth0", address)

    def set_address(self, name: str, link: str, address: str) -> None:
        self.pair.host.guest_shell(
            name, f"ip addr flush dev {link}; ip addr add {address}/24 dev {link}; ip link set {link} up"
        )

    @contextlib.contextmanager
    def pinging(self, name: str, address: str) -> Iterator[Pinged]:
        """A guest that pings five times a second meanwhile. What came of it is told at the end."""
        file, told = f"/tmp/pings-{address}", Pinged()
        shell = functools.partial(self.pair.host.guest_shell, name)
        shell(f"ping -i 0.2 {address} >{file} 2>&1 & echo $! >{file}.pid")
        yield told
        said = shell(f"p=$(cat {file}.pid); kill -INT $p; while kill -0 $p 2>/dev/null; do :; done; tail -n 3 {file}")
        found = _SENT.search(said)
        assert found is not None, said
        told.sent, told.heard = int(found[1]), int(found[2])

    def make_outside(self) -> None:
        """Also after the NIC was started anew."""
        # By its path: the shell has an ip of its own, which can less.
        self.pair.nic.shell(
            "alias ip=/usr/bin/ip\nip netns add out; ip link add out0 type veth peer name out1 netns out\n"
            f"ip link set out0 up; ip -n out addr add {OUTSIDE}/24 dev out1; ip -n out link set out1 up"
        )


def bring_up(pair: Pair, disks: Sequence[JsonObject] = ()) -> Offloaded:
    """As its administrators do: network and VMs on the host, then what they ask for on the NIC."""
    here = Offloaded(pair)
    here.make_outside()
    pair.host.wait_for("smartnic", NIC, is_ready, namespace=None)
    spec = {"provider": "bridge", "bridge": {"uplinks": ["out0"]}, "dataPlane": "SmartNIC"}
    pair.host.create("network", {"metadata": {"name": NETWORK}, "spec": spec}, None)
    for name, address in ADDRESSES.items():
        here.make_guest(name, address, disks=list(disks))
    # Nobody of the NIC's has said yes so far.
    pair.host.wait_for("vm", "a", not_ready_because("WaitingForNetwork"))
    here.sync()
    for name, address in ADDRESSES.items():
        here.await_guest(name, address)
    return here
