"""How long firewall rules take to compile, to load and to change, and what a packet pays for them.

Rules are loaded into a network namespace of their own (root is needed), frames go over its bridge from an uplink to a
port. Beside Carmel stands nft(8): with the same table, as it lists it, and with a plain list of rules. On a kernel
without connection tracking on bridges the few statements that need it are left out: each packet is then judged as the
first of its connection, which is the dearest.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from statistics import median
from typing import NamedTuple

import orjson

from bench.harness import machine, milliseconds, privileges, table
from carmel.controllers.firewall_policies import PolicyCache
from carmel.network.firewall import Connection, NftFirewall, PortBinding, PortKey, Ruleset, assemble
from carmel.network.firewall.nft_tables import TABLE
from carmel.resources.firewallpolicy import FIREWALL_POLICY
from carmel.run import Command, SystemRunner
from carmel.store.protocol import Stored
from tests.system.network.firewall.wire import UntrackedTables, Wire, first_packet

PORT, UPLINK = "cmp0", "uplink"
VM = ipaddress.ip_address("10.200.0.1")
MANY, FEW, POLICIES = 10_000, 10, 5
_FRAMES = 2000
_ROUNDS = 9
_COUNTED = re.compile(rb" counter packets \d+ bytes \d+(?= :)")

_HOW_TO_READ = """From the policies' JSON in the store to the kernel. "CPU" is the time of this process and of what it
starts. "nft, the same table" is what nft(8) takes for the table that Carmel has loaded, in nft's own words. Each packet
is judged as the first of its connection: a kernel that tracks connections on bridges lets through by its mark what was
judged already, which is not in these figures. Peers take turns.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    parser.add_argument("--part", choices=("loading", "packets"), help="only this one")
    arguments = parser.parse_args()
    if arguments.part != "packets":
        print(f"Measured on {machine()} by `python -m bench.firewall`.\n\n{_HOW_TO_READ}")
    with Wire([UPLINK, PORT]) as wire:
        os.set_inheritable(int(wire.namespace.name), True)
        if arguments.part != "packets":
            asyncio.run(measure_loading(wire, arguments.rounds))
        if arguments.part != "loading":
            asyncio.run(measure_packets(wire, arguments.rounds))


# -- policies ---------------------------------------------------------------------------------------------------------
Policies = Mapping[str, Stored]


def rules(first: int, count: int) -> list[dict[str, object]]:
    """Half of the rules are for one address, half for a network; each has a port of its own."""
    made: list[dict[str, object]] = [
        {
            "peers": [{"ipBlock": {"cidr": f"10.{number >> 8}.{number & 255}.0/{24 if number % 2 else 32}"}}],
            "ports": [{"port": 1000 + number}],
        }
        for number in range(first, first + count)
    ]
    if first == 0:
        made[1] = {"peers": [{"vmSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 443}]}
    return made


def stored(name: str, ingress: list[dict[str, object]], version: int = 1) -> Stored:
    metadata = {"name": name, "namespace": "default", "uid": name, "generation": version}
    raw = orjson.dumps({"metadata": metadata, "spec": {"ingress": ingress}})
    return Stored(FIREWALL_POLICY, "default", name, name, str(version), raw)


def policies(total: int, count: int) -> Policies:
    each = total // count
    return {f"p{first}": stored(f"p{first}", rules(first, each)) for first in range(0, total, each)}


def changed(known: Policies) -> Policies:
    """With another sixth rule in the first policy."""
    spec = known["p0"].json()["spec"]["ingress"]
    spec[5] = rules(MANY, 1)[0]
    return {**known, "p0": stored("p0", spec, 2)}


def ruleset(cache: PolicyCache, known: Policies, vms: int = 20) -> Ruleset:
    ports = [
        PortBinding(
            PortKey("default", f"v{number}"),
            f"v{number}",
            {"app": "web"},
            (VM + number,),
            PORT if number == 0 else None,
        )
        for number in range(vms)
    ]
    compiled = cache.compiled(known.values())
    return assemble([one.policy for one in compiled.values()], ports, {"default": {}})


# -- time -------------------------------------------------------------------------------------------------------------
class Took(NamedTuple):
    """Seconds: by the clock, and of CPU time, started programs' included."""

    clock: float
    cpu: float


class Stopwatch:
    def __init__(self) -> None:
        self._began = self._now()

    def took(self) -> Took:
        now = self._now()
        return Took(now.clock - self._began.clock, now.cpu - self._began.cpu)

    def _now(self) -> Took:
        times = os.times()
        return Took(time.perf_counter(), times.user + times.system + times.children_user + times.children_system)


def both(taken: list[Took]) -> str:
    cpu = median(one.cpu for one in taken) * 1000
    return f"{milliseconds([one.clock for one in taken])}, CPU {cpu:.0f} ms"


# -- loading and changing ---------------------------------------------------------------------------------------------
_STEPS = ("compiled", "compiled and loaded", "one rule changed", "one more VM", "all counters read")


async def measure_loading(wire: Wire, rounds: int) -> None:
    ways = {f"{MANY:,} rules in {count} policies": policies(MANY, count) for count in (POLICIES, 100)}
    taken: dict[str, dict[str, list[Took]]] = {}
    for _ in range(rounds):
        for name, known in ways.items():
            for step, one in (await carmel(wire, known)).items():
                taken.setdefault(name, {}).setdefault(step, []).append(one)
        for step, one in (await nft_with_the_same(wire, ways[f"{MANY:,} rules in 100 policies"])).items():
            taken.setdefault("nft, the same table (100 policies)", {}).setdefault(step, []).append(one)
        plain = {"compiled and loaded": await load_plain(wire, MANY)}
        for step, one in plain.items():
            taken.setdefault(f"nft, {MANY:,} plain rules", {}).setdefault(step, []).append(one)
    rows = [(name, *(both(steps[one]) if one in steps else "-" for one in _STEPS)) for name, steps in taken.items()]
    print(table("Firewall: loading and changing", rows, ("rules", *_STEPS)))
    if note := privileges():
        print(note)
    nft = taken["nft, the same table (100 policies)"]
    ours = taken[f"{MANY:,} rules in 100 policies"]
    for what, step in (("All", "compiled and loaded"), ("One rule", "one rule changed")):
        ratio = median(one.clock / other.clock for one, other in zip(ours[step], nft[step], strict=True))
        print(f"{what}, Carmel with compiling against nft without, round by round: {ratio:.2f} times its time.\n")


async def carmel(wire: Wire, known: Policies) -> dict[str, Took]:
    firewall, cache = NftFirewall(UntrackedTables(wire.namespace)), PolicyCache()
    found: dict[str, Took] = {}
    try:
        watch = Stopwatch()
        all_of_them = ruleset(cache, known)
        found["compiled"] = watch.took()
        await firewall.load(all_of_them)
        found["compiled and loaded"] = watch.took()
        other = changed(known)
        watch = Stopwatch()
        await firewall.load(ruleset(cache, other))
        found["one rule changed"] = watch.took()
        watch = Stopwatch()
        await firewall.load(ruleset(cache, other, 21))
        found["one more VM"] = watch.took()
        watch = Stopwatch()
        await firewall.counters()
        found["all counters read"] = watch.took()
        await firewall.remove()
    finally:
        firewall.close()
    return found


async def nft_with_the_same(wire: Wire, known: Policies) -> dict[str, Took]:
    """What nft takes to load the table that Carmel has loaded, to put another element into it, and to list it."""
    firewall = NftFirewall(UntrackedTables(wire.namespace))
    named = f"bridge {TABLE}"
    try:
        await firewall.load(ruleset(PolicyCache(), known))
        text = _COUNTED.sub(b"", await nft(wire, f"list table {named}"))
        whole = f"delete table {named}\n".encode() + text
        found: dict[str, Took] = {}
        watch = Stopwatch()
        await nft(wire, whole)
        found["compiled and loaded"] = watch.took()
        where = f"element {named} in/default/p0/v4.len24.proto.port.0"
        watch = Stopwatch()
        await nft(wire, f"add {where} {{ 10.99.0.0 . tcp . 99 : accept }}")
        found["one rule changed"] = watch.took()
        watch = Stopwatch()
        await nft(wire, f"add element {named} ports {{ cmp9 }}")
        found["one more VM"] = watch.took()
        watch = Stopwatch()
        await nft(wire, f"list table {named}")
        found["all counters read"] = watch.took()
        await firewall.remove()
    finally:
        firewall.close()
    return found


def plain_rules(count: int) -> Iterator[str]:
    for number in range(count):
        source = f"10.{number >> 8}.{number & 255}.0/{24 if number % 2 else 32}"
        yield f"ip saddr {source} tcp dport {1000 + number} counter accept"


async def load_plain(wire: Wire, count: int, *, keep: bool = False) -> Took:
    """What comes to the port is asked of one rule after another, then dropped."""
    text = "\n".join(
        [
            "table bridge plain {",
            "chain post {",
            "type filter hook postrouting priority 0; policy accept;",
            f"oifname != {PORT} accept",
            *plain_rules(count),
            "drop",
            "}",
            "}",
        ]
    )
    watch = Stopwatch()
    await nft(wire, text)
    taken = watch.took()
    if not keep:
        await nft(wire, "delete table bridge plain")
    return taken


async def nft(wire: Wire, text: str | bytes) -> bytes:
    argv = ["nsenter", f"--net={wire.namespace}", "--", "nft", "--numeric", "-f", "-"]
    command = Command(argv, stdin=text if isinstance(text, bytes) else f"{text}\n".encode())
    limits = replace(command.limits, output_bytes=64 << 20)
    return (await SystemRunner().run(replace(command, limits=limits))).stdout


# -- what a packet pays -----------------------------------------------------------------------------------------------
async def measure_packets(wire: Wire, rounds: int) -> None:
    """Frames that match the last rule, and frames that match none; all kinds take turns."""
    taken: dict[str, list[list[float]]] = {}
    few, many = (f"Carmel, {count:,} rules in {POLICIES} policies" for count in (FEW, MANY))
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for _ in range(rounds):
        taken.setdefault("no rules", []).append(send(wire, FEW))
        for name, count, parts in (
            (f"Carmel, {FEW} rules in 1 policy", FEW, 1),
            (few, FEW, POLICIES),
            (many, MANY, POLICIES),
        ):
            firewall = NftFirewall(UntrackedTables(wire.namespace))
            await firewall.load(ruleset(PolicyCache(), policies(count, parts)))
            taken.setdefault(name, []).append(send(wire, count))
            await firewall.remove()
            firewall.close()
        for count in (FEW, MANY):
            await load_plain(wire, count, keep=True)
            taken.setdefault(f"nft, {count:,} plain rules", []).append(send(wire, count))
            await nft(wire, "delete table bridge plain")
    nothing = [median(one) for one in zip(*taken["no rules"], strict=True)]
    rows = [
        (name, *(microseconds(one) for one in zip(*found, strict=True)),
         f"{median(one[0] for one in found) - nothing[0]:.2f} µs")
        for name, found in taken.items()
    ]  # fmt: skip
    heads = (
        "rules",
        "a packet that the last rule allows",
        "a packet that no rule allows",
        "of the former for the rules",
    )
    print(table("Firewall: CPU time to send one frame over the bridge", rows, heads))
    if note := privileges():
        print(note)
    ratio = median(one[0] / other[0] for one, other in zip(taken[many], taken[few], strict=True))
    print(f"{MANY:,} rules against {FEW} in as many policies, round by round: {ratio:.2f} times the CPU time.\n")


def send(wire: Wire, count: int) -> list[float]:
    """Microseconds of CPU time a frame, for one that matches the last of ``count`` rules, and for one that does not."""
    number = count - 1
    peer = ipaddress.ip_address(f"10.{number >> 8}.{number & 255}.0")
    found = []
    for port in (1000 + number, 7):
        frame = first_packet(Connection(peer, 6, port), VM, to_vm=True, tag=0)
        for _ in range(100):
            wire.send(UPLINK, frame)
        found.append(timed(lambda frame=frame: wire.send(UPLINK, frame)))  # type: ignore[misc]
    return found


def timed(work: Callable[[], None]) -> float:
    began = time.thread_time()
    for _ in range(_FRAMES):
        work()
    return (time.thread_time() - began) / _FRAMES * 1e6


def microseconds(values: Iterable[float]) -> str:
    found = list(values)
    return f"{median(found):.2f} µs ({min(found):.2f} to {max(found):.2f}, n={len(found)})"


if __name__ == "__main__":
    main()
