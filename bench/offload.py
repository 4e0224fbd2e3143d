"""What a SmartNIC takes from its host: CPU time for network traffic, switched in software and offloaded, taking turns.

In the lab ``smartnic`` (two emulated machines, KVM inside). CPU time is /proc/stat's of the emulated machine, without
what its guests took (user and system less guest, irq and softirq). The NIC's own is shown beside it: it does the work.
An emulated NIC has no switch in hardware, so every packet costs its cores; on a real one offloaded flows do not.
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from bench.harness import machine, table
from bench.offload_lab import ADDRESSES, OUTSIDE, World, world
from tests.full.smartnic import generator
from tests.system.lab.machine import LabMachine

RULES = 100
_WAYS = ("soft", "off")
_TICK_MS = 10
"""USER_HZ is 100: /proc/stat counts hundredths of a second (proc(5))."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one run: CPU milliseconds of host and NIC, and how much traffic came through (packets, or MB of TCP)."""

    host_ms: float
    nic_ms: float
    amount: float


@dataclass(frozen=True, slots=True)
class Load:
    """``run`` makes the traffic of one way and tells how much came through. ``unit`` is what it is counted in."""

    name: str
    unit: str
    run: Callable[[World, str], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8, help="of traffic in each run")
    arguments = parser.parse_args()
    loads = _loads(arguments.seconds)
    print(f"Measured on {machine()} by `python -m bench.offload`.\n")
    with world(RULES) as here:
        taken: dict[tuple[str, str], list[Cost]] = {}
        for _ in range(arguments.rounds):
            for load in loads:
                for way in _WAYS:
                    taken.setdefault((load.name, way), []).append(_measure(here, load, way))
    rows = [_row(load, taken[load.name, "soft"], taken[load.name, "off"]) for load in loads]
    head = (
        "traffic", "a unit is", "host, software", "host, offloaded", "host's ratio", "NIC, software", "NIC, offloaded",
        "came through, software", "offloaded",
    )  # fmt: skip
    print(table(f"CPU time for traffic, {RULES} firewall rules (ms a unit, medians)", rows, head))


def _measure(here: World, load: Load, way: str) -> Cost:
    before = busy_ms(here.host), busy_ms(here.nic)
    amount = load.run(here, way)
    after = busy_ms(here.host), busy_ms(here.nic)
    return Cost(after[0] - before[0], after[1] - before[1], amount)


def busy_ms(of: LabMachine) -> float:
    """CPU time that all CPUs of a machine spent since its start, its guests' left out."""
    fields = [int(word) for word in of.shell("head -n 1 /proc/stat").split()[1:]]
    user, nice, system, _idle, _wait, irq, softirq, _steal, guest, guest_nice = fields[:10]
    return float((user + nice + system + irq + softirq - guest - guest_nice) * _TICK_MS)


def _row(load: Load, soft: list[Cost], off: list[Cost]) -> tuple[str, ...]:
    host = [statistics.median(cost.host_ms / max(cost.amount, 1e-9) for cost in costs) for costs in (soft, off)]
    nic = [statistics.median(cost.nic_ms / max(cost.amount, 1e-9) for cost in costs) for costs in (soft, off)]
    through = [statistics.median(cost.amount for cost in costs) for costs in (soft, off)]
    ratio = f"{host[0] / host[1]:.1f}" if host[1] > 0 else "more than can be measured"
    return (
        load.name, load.unit, f"{host[0]:.2f}", f"{host[1]:.2f}", ratio, f"{nic[0]:.2f}", f"{nic[1]:.2f}",
        f"{through[0]:.1f}", f"{through[1]:.1f}",
    )  # fmt: skip


# -- loads ----------------------------------------------------------------------------------------------------------
def _loads(seconds: int) -> tuple[Load, ...]:
    outwards = [(64, 1000), (64, 4000), (512, 2000), (1500, 2000)]
    inwards = [(64, 2000), (1500, 2000)]
    return (
        *(_udp(size, rate, seconds, outwards=True) for size, rate in outwards),
        *(_udp(size, rate, seconds, outwards=False) for size, rate in inwards),
        Load("TCP out", "MB", lambda here, way: _tcp(here, way, seconds, outwards=True)),
        Load("TCP in", "MB", lambda here, way: _tcp(here, way, seconds, outwards=False)),
    )


def _udp(size: int, rate: int, seconds: int, *, outwards: bool) -> Load:
    def run(here: World, way: str) -> float:
        count = rate * seconds
        seen = _received_outside if outwards else _received_by_guest
        before = seen(here, way)
        if outwards:
            here.guest(way, _pktgen("eth0", here.outside_mac, ADDRESSES[way], OUTSIDE, size, rate, count))
        else:
            here.outside(_pktgen("out1", here.macs[way], OUTSIDE, ADDRESSES[way], size, rate, count))
        return (seen(here, way) - before) / 1000

    direction = "out" if outwards else "in"
    return Load(f"UDP {direction}, {size} bytes at {rate}/s", "1,000 packets", run)


def _pktgen(link: str, to_mac: str, source: str, to: str, size: int, rate: int, count: int) -> str:
    ports = ("udp_dst_min 9", "udp_dst_max 9", "udp_src_min 9", "udp_src_max 9")
    source_words = (f"src_min {source}", f"src_max {source}")
    sizes = (f"count {count}", f"pkt_size {size}", f"ratep {rate}", "clone_skb 0")
    return generator.script(link, *sizes, f"dst {to}", f"dst_mac {to_mac}", *source_words, *ports)


def _received_outside(here: World, _way: str) -> float:
    return float(here.outside("cat /sys/class/net/out1/statistics/rx_packets").split()[-1])


def _received_by_guest(here: World, way: str) -> float:
    return float(here.guest(way, "cat /sys/class/net/eth0/statistics/rx_packets").split()[-1])


def _tcp(here: World, way: str, seconds: int, *, outwards: bool) -> float:
    """MB that came through in about ``seconds``."""
    send = f"timeout {seconds} cat /dev/zero | nc -w 2"
    if outwards:
        here.outside("nc -l -p 5001 </dev/null 2>/dev/null | wc -c >/tmp/heard & sleep 0.2")
        here.guest(way, f"{send} {OUTSIDE} 5001")
        heard = here.outside(
            "for i in $(seq 50); do [ -s /tmp/heard ] && break; sleep 0.2; done; cat /tmp/heard; rm /tmp/heard"
        )
    else:
        here.guest(way, "nc -l -p 5001 </dev/null 2>/dev/null | wc -c >/tmp/heard & sleep 0.2")
        here.outside(f"{send} {ADDRESSES[way]} 5001")
        heard = here.guest(
            way, "for i in $(seq 50); do [ -s /tmp/heard ] && break; sleep 0.2; done; cat /tmp/heard; rm /tmp/heard"
        )
    return int(re.findall(r"\d+", heard)[-1]) / 1e6


if __name__ == "__main__":
    main()
