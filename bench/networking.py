"""How long a VM takes from the request to its first packet on a network: Carmel's nat network against QEMU by hand.

Both take turns in a network namespace of their own (root is needed). Raw QEMU is given the very arguments that Carmel's
launch record holds, but for its sockets and for its NIC: that has a tap which was made before, on a bridge with dnsmasq
beside it that were made before too. What Carmel does in that time is a Port with its address, tap, bridge port, source
guard, DHCP host and firewall, beside all that is not about networks.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

from bench.harness import machine, milliseconds, privileges, table
from bench.start import own_arguments
from carmel.network.netns import enter
from tests.system.network.hosted.site import Namespace, Site, open_site

_ROUNDS = 9
_DEADLINE_SECONDS = 60
_ETH_ALL = 3
_BRIDGE, _TAP = "byhand0", "byhand1"
_GATEWAY = "10.78.0.1"
_DHCP_CLIENT = (68).to_bytes(2)
_ACKNOWLEDGED = b"\x35\x01\x05"
"""Option 53 of DHCP, message type, of one byte: DHCPACK (RFC 2132, 9.6)."""
_HEADS = 14 + 20
"""Of Ethernet and, without options, of IPv4."""


class Moments(NamedTuple):
    """Seconds from the request: to the guest's first frame, and to its having an address."""

    first: float
    address: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    rounds = parser.parse_args().rounds
    print(f"Measured on {machine()} by `python -m bench.networking`.\n")
    with open_site() as site:
        # As a daemon is, not as tests want it.
        site.daemon.stop()
        site.daemon.environ["CARMEL_LOG_LEVEL"] = "info"
        site.daemon.start()
        site.nat()
        argv = recorded_arguments(site)
        if not any(word.startswith('{"type":"tap"') for word in argv):
            raise SystemExit(f"QEMU was given no tap: {argv}")
        with made_by_hand(site.host):
            starters: dict[str, Callable[[int], Moments]] = {
                "Carmel's API, nat network": lambda number: by_carmel(site, number),
                "raw QEMU, tap and bridge there": lambda number: by_hand(site.host, argv, number),
            }
            taken: dict[str, list[Moments]] = {name: [] for name in starters}
            for number in range(rounds):
                for name, start in starters.items():
                    taken[name].append(start(number))
        site.clean()
    heads = ("started by", "request to the guest's first packet", "request to its address by DHCP")
    rows = [
        (name, milliseconds([one.first for one in moments]), milliseconds([one.address for one in moments]))
        for name, moments in taken.items()
    ]
    print(table("From a VM's start to its first packet", rows, heads))
    if note := privileges():
        print(note)
    ours, raw = taken.values()
    pairs = list(zip(ours, raw, strict=True))
    ratio = median(one.first / other.first for one, other in pairs)
    more = median(one.first - other.first for one, other in pairs) * 1000
    print(f"Carmel against raw QEMU, round by round: {ratio:.2f} times the time, {more:+.0f} ms.\n")


# -- Carmel -----------------------------------------------------------------------------------------------------------
def nic(mac: str) -> dict[str, object]:
    return {"name": "eth0", "networkRef": {"name": "inner"}, "mac": mac}


def mac_of(number: int, *, by_hand: bool) -> str:
    return f"52:54:00:be:{int(by_hand):02x}:{number:02x}"


def by_carmel(site: Site, number: int) -> Moments:
    name, mac = f"first-{number}", mac_of(number, by_hand=False)
    with watching(site.host, mac) as watch:
        site.start(name, nic(mac))
        moments = watch.moments()
    forget(site, name)
    return moments


def recorded_arguments(site: Site) -> list[str]:
    """What Carmel runs for the guest of the measurement."""
    mac = mac_of(255, by_hand=False)
    with watching(site.host, mac) as watch:
        site.start("record", nic(mac))
        watch.moments()
    vm = site.daemon.get("vm", "record")
    record = site.daemon.paths.machine(vm["metadata"]["uid"]).launch_record
    argv = [str(word) for word in json.loads(record.read_text())["argv"]]
    forget(site, "record")
    return argv


def forget(site: Site, name: str) -> None:
    site.daemon.patch("vm", name, {"spec": {"powerOffMode": "Hard"}})
    site.daemon.delete("vm", name)
    site.daemon.wait_gone("vm", name)


# -- QEMU by hand -----------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def made_by_hand(host: Namespace) -> Iterator[None]:
    host.ip(f"link add {_BRIDGE} type bridge")
    host.ip(f"addr add {_GATEWAY}/24 dev {_BRIDGE}")
    host.ip(f"link set {_BRIDGE} up")
    host.ip(f"tuntap add dev {_TAP} mode tap vnet_hdr")
    host.ip(f"link set {_TAP} master {_BRIDGE} up")
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", f"--interface={_BRIDGE}", "--bind-interfaces",
            "--except-interface=lo", "--port=0", "--no-ping", "--dhcp-authoritative", "--user=root",
            "--dhcp-range=10.78.0.10,10.78.0.250", f"--dhcp-leasefile={folder}/leases", f"--pid-file={folder}/pid",
        ]  # fmt: skip
        with host.running(*words):
            yield
    host.ip(f"link delete {_TAP}")
    host.ip(f"link delete {_BRIDGE}")


def by_hand(host: Namespace, argv: list[str], number: int) -> Moments:
    mac = mac_of(number, by_hand=True)
    with tempfile.TemporaryDirectory() as folder, watching(host, mac) as watch:
        command = [with_tap(word, mac) for word in own_arguments(argv, Path(folder))]
        with host.running(*command):
            return watch.moments()


def with_tap(word: str, mac: str) -> str:
    """Our tap by its descriptors becomes the one that was made by hand."""
    if word.startswith('{"type":"tap"'):
        return f"tap,id={json.loads(word)['id']},ifname={_TAP},script=no,downscript=no"
    return re.sub(r"52:54:00:be(:[0-9a-f]{2}){2}", mac, word)


# -- the moments ------------------------------------------------------------------------------------------------------
class Watch:
    """Looks at all frames of a namespace for those from and to one MAC address. Time runs from when it is made."""

    def __init__(self, channel: socket.socket, mac: str) -> None:
        self._channel = channel
        self._mac = bytes.fromhex(mac.replace(":", ""))
        self._began = time.perf_counter()

    def moments(self) -> Moments:
        first: float | None = None
        while True:
            frame = self._channel.recv(2048)
            now = time.perf_counter() - self._began
            if first is None and frame[6:12] == self._mac:
                first = now
            if first is not None and self._mac in frame and is_acknowledgement(frame):
                return Moments(first, now)


def is_acknowledgement(frame: bytes) -> bool:
    return frame[_HEADS + 2 : _HEADS + 4] == _DHCP_CLIENT and _ACKNOWLEDGED in frame


@contextlib.contextmanager
def watching(host: Namespace, mac: str) -> Iterator[Watch]:
    opened: list[socket.socket] = []

    def work() -> None:
        enter(host.path)
        opened.append(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_ALL)))

    # In a thread of its own, which ends: what it does to its namespace is no other thread's business.
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    with opened[0] as channel:
        channel.settimeout(_DEADLINE_SECONDS)
        yield Watch(channel, mac)


if __name__ == "__main__":
    main()
