"""What a SmartNIC takes from its host: CPU time for network traffic, switched in software and offloaded, taking turns.

In the lab ``smartnic`` (two emulated machines, KVM inside). CPU time is /proc/stat's of the emulated machine, without
what its guests took (user and system less guest, irq and softirq). The NIC's own is shown beside it: it does the work.
An emulated NIC has no switch in hardware, so every packet costs its cores; on a real one offloaded flows do not.

Both machines note their CPU time and the port's packets once a second into files of their own. Of each run the seconds
count in which most came through; nobody uses a console meanwhile.
"""

from __future__ import annotations

import argparse
import secrets
import statistics
from dataclasses import dataclass
from typing import NamedTuple

from bench.harness import machine, table
from bench.offload_lab import ADDRESSES, OUTSIDE, World, world
from tests.full.smartnic import generator
from tests.system.lab.machine import LabMachine

RULES = 100
_WAYS = ("soft", "off")
_TICK_MS = 10
"""USER_HZ is 100: /proc/stat counts hundredths of a second (proc(5))."""
_AROUND = 3
"""Seconds of traffic before and after those that may count."""


class Sample(NamedTuple):
    """``busy_ms`` since the machine's start; packets from the function and to it."""

    second: int
    busy_ms: float
    received: int
    sent: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Each a second: CPU milliseconds of host and NIC, and what came through, in 1,000 packets."""

    host_ms: float
    nic_ms: float
    amount: float


@dataclass(frozen=True, slots=True)
class Load:
    """UDP of ``size`` bytes a frame, ``rate`` a second. ``outwards``: the guest sends."""

    outwards: bool
    size: int
    rate: int

    @property
    def name(self) -> str:
        direction = "out" if self.outwards else "in"
        return f"UDP {direction}, {self.size} bytes, {self.rate:,}/s"


_LOADS = (
    Load(True, 64, 1000), Load(True, 64, 4000), Load(True, 512, 2000), Load(True, 1500, 2000),
    Load(False, 64, 2000), Load(False, 1500, 2000),
)  # fmt: skip


_HEAVY = (Load(True, 64, 4000), Load(False, 1500, 2000))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8, help="that count of each run")
    parser.add_argument("--quick", action="store_true", help="only what loads a host most")
    arguments = parser.parse_args()
    loads = _HEAVY if arguments.quick else _LOADS
    print(f"Measured on {machine()} by `python -m bench.offload`.\n")
    taken: dict[tuple[Load, str], list[Cost]] = {}
    with world(RULES) as here:
        for _ in range(arguments.rounds):
            for load in loads:
                for way in _WAYS:
                    taken.setdefault((load, way), []).append(_measure(here, load, way, arguments.seconds))
    rows = [_row(load, taken[load, "soft"], taken[load, "off"]) for load in loads]
    head = (
        "traffic", "a unit is", "host, software", "host, offloaded", "host's ratio", "NIC, software", "NIC, offloaded",
        "units a second, software", "offloaded",
    )  # fmt: skip
    print(table(f"CPU time for traffic, {RULES} firewall rules (ms a unit, medians)", rows, head))
    print("With everything else that runs on them: the daemons of both, and what the guests' machines do when idle.\n")


def _row(load: Load, soft: list[Cost], off: list[Cost]) -> tuple[str, ...]:
    host = [statistics.median(cost.host_ms / cost.amount for cost in costs) for costs in (soft, off)]
    nic = [statistics.median(cost.nic_ms / cost.amount for cost in costs) for costs in (soft, off)]
    rate = [statistics.median(cost.amount for cost in costs) for costs in (soft, off)]
    ratio = f"{host[0] / host[1]:.1f}" if host[1] > 0 else "too little to be measured"
    return (
        load.name, "1,000 packets", f"{host[0]:.1f}", f"{host[1]:.1f}", ratio,
        f"{nic[0]:.1f}", f"{nic[1]:.1f}", f"{rate[0]:.2f}", f"{rate[1]:.2f}",
    )  # fmt: skip


def _measure(here: World, load: Load, way: str, seconds: int) -> Cost:
    lasts = seconds + 2 * _AROUND
    file = f"/tmp/samples-{secrets.token_hex(4)}"
    for each in (here.host, here.nic):
        link = here.interfaces[way] if each is here.nic else "lo"
        each.shell(_SAMPLER.format(count=lasts + _AROUND, link=link, file=file))
    said = here.run(way, _udp(here, load, way, lasts), in_guest=load.outwards)
    if "errors: 0" not in said:
        raise RuntimeError(f"the generator of {way} says: {said}")
    return _best(_samples(here.nic, file), _samples(here.host, file), load, seconds)


def _udp(here: World, load: Load, way: str, seconds: int) -> str:
    source, to = (ADDRESSES[way], OUTSIDE) if load.outwards else (OUTSIDE, ADDRESSES[way])
    link, mac = ("eth0", here.outside_mac) if load.outwards else ("out1", here.macs[way])
    ports = ("udp_dst_min 9", "udp_dst_max 9", "udp_src_min 9", "udp_src_max 9", "clone_skb 0")
    size = (f"count {load.rate * seconds}", f"pkt_size {load.size}", f"ratep {load.rate}")
    return generator.script(
        link, *size, f"dst {to}", f"dst_mac {mac}", f"src_min {source}", f"src_max {source}", *ports
    )


# -- samples --------------------------------------------------------------------------------------------------------
_SAMPLER = """
s=/sys/class/net/{link}/statistics
(for i in $(seq {count}); do read c </proc/stat; read a <$s/rx_packets; read b <$s/tx_packets
echo "$(date +%s) $c $a $b"; sleep 1; done) >{file} 2>/dev/null &
"""


def _samples(of: LabMachine, file: str) -> list[Sample]:
    return [_sample(line.split()) for line in of.shell(f"cat {file}").splitlines() if " cpu " in line]


def _sample(words: list[str]) -> Sample:
    user, nice, system, _idle, _wait, irq, softirq, _steal, guest, guest_nice = map(int, words[2:12])
    busy = (user + nice + system + irq + softirq - guest - guest_nice) * _TICK_MS
    return Sample(int(words[0]), busy, int(words[12]), int(words[13]))


def _best(nic: list[Sample], host: list[Sample], load: Load, seconds: int) -> Cost:
    """Of the seconds in which most came through."""

    def came(first: Sample, last: Sample) -> float:
        counts = [one.received if load.outwards else one.sent for one in (first, last)]
        return (counts[1] - counts[0]) / 1e3

    windows = [(one, other) for one in nic for other in nic if seconds <= other.second - one.second <= seconds + 1]
    first, last = max(windows, key=lambda window: came(*window) / (window[1].second - window[0].second))
    began = min(host, key=lambda one: abs(one.second - first.second))
    ended = min(host, key=lambda one: abs(one.second - last.second))
    lasted = last.second - first.second
    # By the second: the two machines' clocks and samples are not the same to the tenth.
    host_ms = (ended.busy_ms - began.busy_ms) / (ended.second - began.second)
    return Cost(host_ms, (last.busy_ms - first.busy_ms) / lasted, max(came(first, last) / lasted, 1e-6))


if __name__ == "__main__":
    main()
