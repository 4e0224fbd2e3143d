"""What a SmartNIC takes from its host: instructions for network traffic, switched in software and offloaded, in turns.

In the lab ``smartnic`` (two emulated machines, KVM inside). Counted is what the machine executes (``instructions``),
without its guests, and less what no traffic causes, measured before each round: what the machine does while its guest
is idle, and, by as much as the guest does, while it computes. Waiting for idle guests (halt_poll_ns) is off. A packet
that is received counts when the guest has it. The NIC's own is shown beside it: it does the work, and it plays the
outside. An emulated NIC has no switch in hardware, so every packet costs its cores; on a real one offloaded flows do
not.

Both machines note what they do, and the port's counters, once a second into files of their own, in the midst of the
traffic. Nobody uses a console meanwhile, and the daemons and the guest of the other way stand still (SIGSTOP).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bench.harness import machine, table
from bench.offload_lab import World, world
from bench.offload_loads import HEAVY, LOADS, Interrupted, Load, sending
from bench.offload_samples import SECONDS, Cost, Rest, Watched, at_rest, begin_noting, medians, ratio, read_notes, watch

RULES = 100
_WAYS = ("soft", "off")
_TRIES = 3
_AROUND = 8
"""Seconds of traffic besides those that count: two machines are told to begin to note, one after the other."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="that count of each run")
    parser.add_argument("--quick", action="store_true", help="only what loads a host most")
    parser.add_argument("--only", default="", metavar="WORDS", help="loads whose names have these words in them")
    arguments = parser.parse_args()
    loads = [load for load in (HEAVY if arguments.quick else LOADS) if arguments.only in load.name]
    print(f"Measured on {machine()} by `python -m bench.offload`.\n")
    taken: dict[tuple[Load, str], list[Cost]] = {}
    rests: dict[str, list[Rest]] = {way: [] for way in _WAYS}
    with world(RULES) as here:
        for _ in range(arguments.rounds):
            for way in _WAYS:
                rests[way].append(at_rest(*_watched(here, way), arguments.seconds, way))
            for load in loads:
                for way in _WAYS:
                    cost = _measure(here, load, way, arguments.seconds, rests[way][-1])
                    taken.setdefault((load, way), []).append(cost)
                    print(f"{load.name}, {way}: {cost}", file=sys.stderr, flush=True)
    rest = {way: Rest.of_all(of) for way, of in rests.items()}
    rows = [_row(load, taken[load, "soft"], taken[load, "off"], rest["off"]) for load in loads]
    head = (
        "traffic", "a unit is", "host, software", "host, offloaded", "host's ratio", "its waiting, software",
        "offloaded", "NIC, software", "NIC, offloaded", "units a second, software", "offloaded",
    )  # fmt: skip
    print(table(f"Network traffic, {RULES} firewall rules (millions of instructions a unit, medians)", rows, head))
    for way, name in zip(_WAYS, ("Software", "Offloaded"), strict=True):
        print(f"{name}: less what they do when nothing is sent, {rest[way]}.")
    print("The outside runs on the NIC, and is counted there. Below 0 is noise.\n")


def _row(load: Load, soft: Sequence[Cost], off: Sequence[Cost], rest: Rest) -> tuple[str, ...]:
    one, other = medians(soft), medians(off)
    hosts = ratio(one.host, other.host, rest.noise / other.rate)
    return (
        load.name, load.unit, f"{one.host:.2f}", f"{other.host:.2f}", hosts, f"{one.waits:.2f}", f"{other.waits:.2f}",
        f"{one.nic:.1f}", f"{other.nic:.1f}", f"{one.rate:.2f}", f"{other.rate:.2f}",
    )  # fmt: skip


def _measure(here: World, load: Load, way: str, seconds: int, rest: Rest) -> Cost:
    """Once more if nothing came through in some second, which was seen once, and not found out why."""
    for _ in range(_TRIES - 1):
        try:
            return _measured(here, load, way, seconds, rest)
        except Interrupted as error:
            print(f"{way}: {error}", file=sys.stderr, flush=True)
    return _measured(here, load, way, seconds, rest)


def _measured(here: World, load: Load, way: str, seconds: int, rest: Rest) -> Cost:
    def guest(script: str) -> str:
        return here.run(way, script, in_guest=True)

    with sending(here, load, way, seconds + _AROUND):
        file = begin_noting(guest, "eth0", seconds) if load.may_be_lost else None
        host, nic = watch(seconds, *_watched(here, way))
        in_guest = None if file is None else read_notes(guest, file)
    passed = load.passed(nic.samples)
    if in_guest is not None:
        first, last = in_guest[0], in_guest[-1]
        passed = (last.packets_in - first.packets_in) / (last.second - first.second) / 1e3
    return Cost(rest.less(host, nic), passed, host.waits)


def _watched(here: World, way: str) -> tuple[Watched, Watched]:
    """The other guest stands still."""
    others = tuple(pid for name, pid in here.pids.items() if name != way)
    return Watched(here.host, still=others), Watched(here.nic, here.interfaces[way])


if __name__ == "__main__":
    main()
