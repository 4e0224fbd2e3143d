"""What a SmartNIC takes from its host: CPU time for network traffic, switched in software and offloaded, taking turns.

In the lab ``smartnic`` (two emulated machines, KVM inside). CPU time is /proc/stat's of the emulated machine, without
what its guests took (user and system less guest, irq and softirq), and less what no traffic causes, measured before
each round: what the machine takes at rest, and what a guest's vCPU costs its host by only running (timer ticks, dear in
emulation), by the second that guests had. Waiting for idle guests (halt_poll_ns) is off. The NIC's own is shown beside
it: it does the work, and it plays the outside. An emulated NIC has no switch in hardware, so every packet costs its
cores; on a real one offloaded flows do not.

Both machines note their CPU time and the port's counters once a second into files of their own, in the midst of the
traffic. Nobody uses a console meanwhile, and both daemons stand still (SIGSTOP): no packet needs them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from bench.harness import machine, table
from bench.offload_lab import World, world
from bench.offload_loads import HEAVY, LOADS, Load, sending
from bench.offload_samples import SECONDS, Cost, Rest, at_rest, medians, ratio, watch

RULES = 100
_WAYS = ("soft", "off")
_AROUND = 8
"""Seconds of traffic besides those that count: two machines are told to begin to note, one after the other."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="that count of each run")
    parser.add_argument("--quick", action="store_true", help="only what loads a host most")
    arguments = parser.parse_args()
    loads = HEAVY if arguments.quick else LOADS
    print(f"Measured on {machine()} by `python -m bench.offload`.\n")
    taken: dict[tuple[Load, str], list[Cost]] = {}
    rests: list[Rest] = []
    with world(RULES) as here:
        for _ in range(arguments.rounds):
            rest = at_rest(here.host, here.nic, arguments.seconds, _WAYS[0])
            rests.append(rest)
            for load in loads:
                for way in _WAYS:
                    taken.setdefault((load, way), []).append(_measure(here, load, way, arguments.seconds, rest))
    rest = Rest.of_all(rests)
    rows = [_row(load, taken[load, "soft"], taken[load, "off"], rest) for load in loads]
    head = (
        "traffic", "a unit is", "host, software", "host, offloaded", "host's ratio", "NIC, software", "NIC, offloaded",
        "units a second, software", "offloaded",
    )  # fmt: skip
    print(table(f"CPU time for traffic, {RULES} firewall rules (ms a unit, medians)", rows, head))
    print(
        f"Less what they take when nothing is sent, with both guests up: the host {rest.busy.host:.0f} ms a second, "
        f"the NIC {rest.busy.nic:.0f} ms (medians; waiting guests and timers: the daemons stand still), and less "
        f"{rest.vcpu:.0f} ms of the host for a second that a guest had. What the host takes at rest differs by "
        f"{rest.noise:.1f} ms a second. "
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
    with sending(here, load, way, seconds + _AROUND):
        host, nic = watch(seconds, (here.host, "lo"), (here.nic, here.interfaces[way]))
    return Cost(rest.less(host, nic), load.passed(nic))


if __name__ == "__main__":
    main()
