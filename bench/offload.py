"""What a SmartNIC takes from its host: CPU time for network traffic, switched in software and offloaded, taking turns.

In the lab ``smartnic`` (two emulated machines, KVM inside). CPU time is /proc/stat's of the emulated machine, without
what its guests took (user and system less guest, irq and softirq), and less what no traffic causes, measured before
each round: what the machine takes at rest, and what a guest's vCPU costs its host by only running (timer ticks, dear in
emulation), by the second that guests had. Waiting for idle guests (halt_poll_ns) is off. The NIC's own is shown beside
it: it does the work, and it plays the outside. An emulated NIC has no switch in hardware, so every packet costs its
cores; on a real one offloaded flows do not.

Both machines note their CPU time and the port's counters once a second into files of their own. Of each run the seconds
count in which most came through; nobody uses a console meanwhile.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bench.harness import machine, table
from bench.offload_lab import World, world
from bench.offload_loads import HEAVY, LOADS, Load, send
from bench.offload_samples import (
    CYCLE_SECONDS,
    Cost,
    Rest,
    at_rest,
    fullest,
    medians,
    ratio,
    read_samples,
    start_samples,
)

RULES = 100
_WAYS = ("soft", "off")
_AROUND = 3
"""Seconds of traffic before and after those that may count."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=CYCLE_SECONDS, help="that count of each run")
    parser.add_argument("--quick", action="store_true", help="only what loads a host most")
    arguments = parser.parse_args()
    loads = HEAVY if arguments.quick else LOADS
    print(f"Measured on {machine()} by `python -m bench.offload`.\n")
    taken: dict[tuple[Load, str], list[Cost]] = {}
    rests: list[Rest] = []
    with world(RULES) as here:
        for _ in range(arguments.rounds):
            rest = at_rest(here.host, here.nic, _WAYS[0])
            rests.append(rest)
            for load in loads:
                for way in _WAYS:
                    taken.setdefault((load, way), []).append(_measure(here, load, way, arguments.seconds, rest))
    rest = Rest.median(rests)
    rows = [_row(load, taken[load, "soft"], taken[load, "off"], rest) for load in loads]
    head = (
        "traffic", "a unit is", "host, software", "host, offloaded", "host's ratio", "NIC, software", "NIC, offloaded",
        "units a second, software", "offloaded",
    )  # fmt: skip
    print(table(f"CPU time for traffic, {RULES} firewall rules (ms a unit, medians)", rows, head))
    print(
        f"Less what they take when nothing is sent, with both guests up: the host {rest.busy.host:.0f} ms a second, "
        f"the NIC {rest.busy.nic:.0f} ms (medians; both daemons, and waiting guests), and less {rest.vcpu:.0f} ms of "
        f"the host for a second that a guest had. What the host takes at rest differs by {rest.noise:.0f} ms a second. "
        "The outside runs on the NIC, and is counted there. Below 0 is noise.\n"
    )


def _row(load: Load, soft: Sequence[Cost], off: Sequence[Cost], rest: Rest) -> tuple[str, ...]:
    one, other = medians(soft), medians(off)
    hosts = ratio(one.host, other.host, rest.noise / other.rate)
    return (
        load.name, load.unit, f"{one.host:.1f}", f"{other.host:.1f}", hosts,
        f"{one.nic:.1f}", f"{other.nic:.1f}", f"{one.rate:.2f}", f"{other.rate:.2f}",
    )  # fmt: skip


def _measure(here: World, load: Load, way: str, seconds: int, rest: Rest) -> Cost:
    lasts = seconds + 2 * _AROUND
    host_file = start_samples(here.host, "lo", lasts + _AROUND)
    nic_file = start_samples(here.nic, here.interfaces[way], lasts + _AROUND)
    send(here, load, way, lasts)
    nic, host = read_samples(here.nic, nic_file), read_samples(here.host, host_file)
    (first, last), amount = fullest(nic, load.amount, seconds)
    began = min(host, key=lambda one: abs(one.second - first.second))
    ended = min(host, key=lambda one: abs(one.second - last.second))
    return Cost(rest.less((began, ended), (first, last)), amount)


if __name__ == "__main__":
    main()
