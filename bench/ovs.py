"""How long firewall rules take to load and to change in Open vSwitch, beside nftables on a Linux bridge, in turns.

Open vSwitch is one of the run's own, in a network namespace, with its datapath in user space (root is needed). Both get
the same compiled rules. "In force" means for Open vSwitch that its datapath has forgotten what it knew by heart. A
first packet is one of a connection that no flow is known for: ovs-vswitchd decides, and its CPU time is what is shown.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench.firewall import FEW, MANY, PORT, UPLINK, VM, Stopwatch, Took, both, changed, policies, ruleset
from bench.harness import machine, table
from carmel.controllers.firewall_policies import PolicyCache
from carmel.network.firewall import Connection, FirewallDataPlane, NftFirewall, Ruleset
from carmel.network.ovs.firewall import OvsFirewall
from tests.system.network.firewall.wire import UntrackedTables, first_packet
from tests.system.network.firewall.wire import Wire as BridgeWire
from tests.system.network.ovs.wire import UPLINK as OVS_UPLINK
from tests.system.network.ovs.wire import Wire, wire

_ROUNDS = 5
_STEPS = ("all rules in force", "one rule changed", "one more VM", "all counters read")
_PEERS = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=_ROUNDS)
    rounds = parser.parse_args().rounds
    print(f"Measured on {machine()} by `python -m bench.ovs`.\n")
    with BridgeWire([UPLINK, PORT]) as bridge, tempfile.TemporaryDirectory(prefix="cb-") as folder:
        os.set_inheritable(int(bridge.namespace.name), True)
        asyncio.run(measure(bridge, Path(folder), rounds))


async def measure(bridge: BridgeWire, folder: Path, rounds: int) -> None:
    taken: dict[str, dict[str, list[Took]]] = {}
    first: dict[str, list[float]] = {}
    async with wire(folder, ["vm"]) as switch:
        for _ in range(rounds):
            nft = NftFirewall(UntrackedTables(bridge.namespace))
            for name, firewall, interface in (
                ("Open vSwitch", OvsFirewall(switch.lab.switch), switch.interface("vm")),
                ("nftables", nft, PORT),
            ):
                for step, took in (await load(firewall, interface)).items():
                    taken.setdefault(name, {}).setdefault(step, []).append(took)
                await firewall.remove()
            nft.close()
            for count in (FEW, MANY):
                first.setdefault(f"{count:,} rules", []).append(await first_packets(switch, count))
    rows = [(name, *(both(steps[one]) for one in _STEPS)) for name, steps in taken.items()]
    print(table(f"{MANY:,} rules in 5 policies, compiled already", rows, ("switch", *_STEPS)))
    costs = [
        (name, f"{median(some):.0f} µs ({min(some):.0f} to {max(some):.0f}, n={len(some)})")
        for name, some in first.items()
    ]
    print(table("Open vSwitch: CPU time for a first packet", costs, ("rules", "of ovs-vswitchd")))


def here(rules: Ruleset, interface: str) -> Ruleset:
    """The one port that is plugged in, by the name that it has there."""
    ports = {
        key: replace(one, port=replace(one.port, interface=interface if one.port.interface else None))
        for key, one in rules.ports.items()
    }
    return replace(rules, ports=ports)


async def load(firewall: FirewallDataPlane, interface: str) -> dict[str, Took]:
    cache, known = PolicyCache(), policies(MANY, 5)
    steps = {
        _STEPS[0]: ruleset(cache, known),
        _STEPS[1]: ruleset(cache, changed(known)),
        _STEPS[2]: ruleset(cache, changed(known), 21),
    }
    found = {}
    for name, rules in steps.items():
        watch = Stopwatch()
        await firewall.load(here(rules, interface))
        found[name] = watch.took()
    watch = Stopwatch()
    await firewall.counters()
    found[_STEPS[3]] = watch.took()
    return found


async def first_packets(switch: Wire, count: int) -> float:
    """Microseconds of CPU time that ovs-vswitchd takes for each of ``_PEERS`` peers that no rule allows."""
    firewall = OvsFirewall(switch.lab.switch)
    await firewall.load(here(ruleset(PolicyCache(), policies(count, 5)), switch.interface("vm")))
    await switch.forget()
    before = _cpu_seconds(switch)
    for number in range(_PEERS):
        # All over the rules' own networks: neighbours of what rules name are told apart by more bits.
        peer = ipaddress.ip_address(f"10.{number % 40}.{number % 256}.{number % 251}")
        switch.send(OVS_UPLINK, first_packet(Connection(peer, 6, 7), VM, to_vm=True, tag=0))
        if number % 50 == 49:
            # No more under way than a socket holds.
            switch.arrived(OVS_UPLINK, "vm")
    took = _cpu_seconds(switch) - before
    await firewall.remove()
    return took / _PEERS * 1e6


def _cpu_seconds(switch: Wire) -> float:
    """Of all threads (proc(5), ``schedstat``: nanoseconds)."""
    pid = (switch.lab.ovs.folder / "ovs-vswitchd.pid").read_text().strip()
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(one.read_text().split()[0]) for one in threads) / 1e9


if __name__ == "__main__":
    main()
