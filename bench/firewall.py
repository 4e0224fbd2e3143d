"""How long firewall rules take to compile, to load and to change, and what a packet pays for them.

Rules are loaded by nft into a network namespace of their own (root is needed), frames go over its bridge from an uplink
to a port. Beside Carmel's lookups stands the same as a plain list of nft rules. On a kernel without connection tracking
on bridges the few statements that need it are left out: each packet is then judged as the first of its connection,
which is the dearest.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import NamedTuple

import orjson

from bench.harness import machine, milliseconds, table
from carmel.network.firewall import (
    CompiledPolicy,
    Connection,
    NftFirewall,
    PolicyRef,
    PortBinding,
    PortKey,
    Ruleset,
    assemble,
    compile_policy,
)
from carmel.resources.firewallpolicy import FirewallPolicySpec
from carmel.run import Command
from tests.system.network.firewall.wire import UntrackedRunner, Wire, first_packet

PORT, UPLINK = "cmp0", "uplink"
VM = ipaddress.ip_address("10.200.0.1")
MANY, FEW = 10_000, 10
_FRAMES = 2000
_ROUNDS = 9

_HOW_TO_READ = """Each packet is judged as the first of its connection: a kernel that tracks connections on bridges lets
through by its mark what was judged already, which is not in these figures. "CPU" is the time of the daemon's side
and of nft. A changed policy is compiled whole, so that a change in a large one costs more.
"""

Policies = dict[PolicyRef, CompiledPolicy]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    rounds = parser.parse_args().rounds
    print(f"Measured on {machine()} by `python -m bench.firewall`.\n\n{_HOW_TO_READ}")
    with Wire([UPLINK, PORT]) as wire:
        asyncio.run(measure_loading(wire, rounds))
        asyncio.run(measure_packets(wire, rounds))


def spec(first: int, count: int) -> FirewallPolicySpec:
    """Half of the rules are for one address, half for a network; each has a port of its own."""
    rules: list[dict[str, object]] = [
        {
            "peers": [{"ipBlock": {"cidr": f"10.{number >> 8}.{number & 255}.0/{24 if number % 2 else 32}"}}],
            "ports": [{"port": 1000 + number}],
        }
        for number in range(first, first + count)
    ]
    if first == 0:
        rules[1] = {"peers": [{"vmSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 443}]}
    return FirewallPolicySpec.model_validate({"ingress": rules})


def policies(total: int, each: int) -> dict[PolicyRef, FirewallPolicySpec]:
    each = min(total, each)
    return {PolicyRef("default", f"p{first}"): spec(first, each) for first in range(0, total, each)}


def ruleset(compiled: Policies, vms: int = 20) -> Ruleset:
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
    return assemble(compiled.values(), ports, {"default": {}})


def compiled_of(specs: dict[PolicyRef, FirewallPolicySpec]) -> Policies:
    return {ref: compile_policy(ref, one) for ref, one in specs.items()}


class Took(NamedTuple):
    """Seconds: by the clock, and of CPU time, nft's included."""

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
async def measure_loading(wire: Wire, rounds: int) -> None:
    rows = []
    for each in (2000, 100):
        taken: dict[str, list[Took]] = {name: [] for name in ("compile", "load", "rule", "vm")}
        specs = policies(MANY, each)
        for number in range(rounds):
            firewall = NftFirewall(UntrackedRunner(), namespace=wire.namespace)
            watch = Stopwatch()
            compiled = compiled_of(specs)
            rules = ruleset(compiled)
            taken["compile"].append(watch.took())
            await firewall.load(rules)
            taken["load"].append(watch.took())
            ref = PolicyRef("default", "p0")
            changed = specs[ref].model_copy(deep=True)
            assert changed.ingress is not None
            changed.ingress[5] = spec(MANY + number, 1).ingress[0]  # type: ignore[index]
            watch = Stopwatch()
            compiled = {**compiled, ref: compile_policy(ref, changed)}
            await firewall.load(ruleset(compiled))
            taken["rule"].append(watch.took())
            watch = Stopwatch()
            await firewall.load(ruleset(compiled, 21))
            taken["vm"].append(watch.took())
            await firewall.remove()
        what = f"{MANY:,} rules in policies of {each:,}"
        rows.append((what, *(both(one) for one in taken.values())))
    plain = [await load_plain(wire, MANY) for _ in range(rounds)]
    rows.append((f"{MANY:,} plain nft rules, loaded whole", "-", both(plain), "-", "-"))
    heads = ("rules", "compiled", "compiled and loaded", "one rule changed", "one more VM")
    print(table("Firewall: loading and changing", rows, heads))


def plain_rules(count: int) -> Iterator[dict[str, object]]:
    for number in range(count):
        network = {"prefix": {"addr": f"10.{number >> 8}.{number & 255}.0", "len": 24 if number % 2 else 32}}
        source = {"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}}, "right": network}}
        port = {
            "match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 1000 + number}
        }
        yield {"expr": [source, port, {"counter": None}, {"accept": None}]}


async def load_plain(wire: Wire, count: int, *, keep: bool = False) -> Took:
    """What comes to the port is asked of one rule after another, then dropped."""
    at = {"family": "bridge", "table": "plain"}
    hook = {"type": "filter", "hook": "postrouting", "prio": 0, "policy": "accept"}
    mine = {"match": {"op": "!=", "left": {"meta": {"key": "oifname"}}, "right": PORT}}
    commands: list[dict[str, object]] = [
        {"add": {"table": {"family": "bridge", "name": "plain"}}},
        {"add": {"chain": {**at, "name": "post", **hook}}},
        {"add": {"rule": {**at, "chain": "post", "expr": [mine, {"accept": None}]}}},
    ]
    last: dict[str, object] = {"expr": [{"drop": None}]}
    commands += ({"add": {"rule": {**at, "chain": "post", **rule}}} for rule in (*plain_rules(count), last))
    watch = Stopwatch()
    await nft(wire, commands)
    taken = watch.took()
    if not keep:
        await remove_plain(wire)
    return taken


async def remove_plain(wire: Wire) -> None:
    await nft(wire, [{"delete": {"table": {"family": "bridge", "name": "plain"}}}])


async def nft(wire: Wire, commands: list[dict[str, object]]) -> None:
    argv = ["nsenter", f"--net={wire.namespace}", "--", "nft", "--json", "-f", "-"]
    await UntrackedRunner().run(Command(argv, stdin=orjson.dumps({"nftables": commands})))


# -- what a packet pays -----------------------------------------------------------------------------------------------
async def measure_packets(wire: Wire, rounds: int) -> None:
    """Frames that match the last rule, and frames that match none; all kinds take turns."""
    taken: dict[str, list[list[float]]] = {}
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    for _ in range(rounds):
        taken.setdefault("no rules", []).append(send(wire, FEW))
        for count in (FEW, MANY):
            firewall = NftFirewall(UntrackedRunner(), namespace=wire.namespace)
            await firewall.load(ruleset(compiled_of(policies(count, 2000))))
            taken.setdefault(f"Carmel, {count:,} rules", []).append(send(wire, count))
            await firewall.remove()
            await load_plain(wire, count, keep=True)
            taken.setdefault(f"plain nft, {count:,} rules", []).append(send(wire, count))
            await remove_plain(wire)
    nothing = [median(one) for one in zip(*taken["no rules"], strict=True)]
    rows = [
        (name, *(microseconds(list(one)) for one in zip(*found, strict=True)),
         f"{median(one[1] for one in found) - nothing[1]:.2f} µs")
        for name, found in taken.items()
    ]  # fmt: skip
    heads = ("rules", "a packet that the last rule allows", "a packet that no rule allows", "of that for the rules")
    print(table("Firewall: CPU time to send one frame over the bridge", rows, heads))


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


def microseconds(values: list[float]) -> str:
    return f"{median(values):.2f} µs ({min(values):.2f} to {max(values):.2f}, n={len(values)})"


if __name__ == "__main__":
    main()
