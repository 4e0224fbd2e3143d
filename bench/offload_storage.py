"""What a SmartNIC takes from its host: CPU time for remote storage, by the host's own initiator and by the NIC's.

``tcp``: the host's kernel speaks NVMe over TCP with the target. ``nic``: the NIC's does, and the host has an NVMe
function. The host itself reads and writes blocks; and a VM does, on a Volume of a datastore there, and on a function of
its own (vfio-pci). None of it goes through the host's page cache. CPU time as in ``bench.offload``: of emulated
machines, without their guests', less what they take at rest; and where the host itself writes, less what it takes to
make the blocks (``dd`` from /dev/zero to /dev/null, in the same round). The target runs on the NIC either way, and is
counted there. The emulation has a shortcut: the NVMe controller is the outer QEMU's, not the NIC's.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.harness import machine, table
from bench.offload_samples import Busy, Cost, Rest, at_rest, busiest, medians, ratio, read_samples, start_samples
from bench.offload_storage_lab import PATIENCE_SECONDS, drives, guests
from tests.daemon import running_daemon
from tests.full.smartnic.pair import Pair, lab_pair

_WAYS = ("tcp", "nic")
_KIB = 1024
_PASS = {128: 128, 4: 256}
"""How many blocks of so many KiB are asked for before it is looked at the clock."""
_AROUND = 2


@dataclass(frozen=True, slots=True)
class Load:
    """``kib``: a block. ``vm``: whose blocks they are: a VM's, or the host's own."""

    kib: int
    write: bool
    vm: bool = False

    @property
    def name(self) -> str:
        who, what = "a VM" if self.vm else "the host", "writes" if self.write else "reads"
        return f"{who} {what}, {self.kib} KiB"


_HOSTS = (Load(128, write=False), Load(128, write=True), Load(4, write=False), Load(4, write=True))
_VMS = (
    Load(128, write=False, vm=True), Load(128, write=True, vm=True),
    Load(4, write=False, vm=True), Load(4, write=True, vm=True),
)  # fmt: skip
_NOWHERE = "/dev/null"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8, help="that count of each run")
    arguments = parser.parse_args()
    print(f"Measured on {machine()} by `python -m bench.offload_storage`.\n")
    with running_daemon() as outer, tempfile.TemporaryDirectory() as home, lab_pair(outer, Path(home)) as pair:
        for title, loads, devices in (("the host's own blocks", _HOSTS, drives), ("a VM's blocks", _VMS, guests)):
            taken, rest = _taken(pair, loads, devices(pair), arguments.rounds, arguments.seconds)
            _show(title, loads, taken, rest)
        pair.host.delete_all_vms()


def _show(title: str, loads: Sequence[Load], taken: dict[tuple[Load, str], list[Cost]], rest: Rest) -> None:
    rows = [_row(load, taken[load, "tcp"], taken[load, "nic"]) for load in loads]
    head = (
        "blocks", "host, NVMe/TCP of its own", "host, NVMe of the NIC", "host's ratio", "NIC, target only",
        "NIC, offloaded", "MiB a second, of its own", "of the NIC",
    )  # fmt: skip
    print(table(f"CPU time for remote storage: {title} (ms a MiB, medians)", rows, head))
    print(
        f"Less what they take at rest: the host {rest.busy.host:.0f} ms a second, the NIC {rest.busy.nic:.0f} ms, and "
        f"{rest.vcpu:.0f} ms of the host for a second that a guest had (medians).\n",
        flush=True,
    )


def _row(load: Load, tcp: Sequence[Cost], nic: Sequence[Cost]) -> tuple[str, ...]:
    one, other = medians(tcp), medians(nic)
    return (
        load.name, f"{one.host:.2f}", f"{other.host:.2f}", ratio(one.host, other.host), f"{one.nic:.2f}",
        f"{other.nic:.2f}", f"{one.rate:.1f}", f"{other.rate:.1f}",
    )  # fmt: skip


# -- what is measured --------------------------------------------------------------------------------------------------
def _taken(
    pair: Pair, loads: Sequence[Load], devices: Mapping[str, str], rounds: int, seconds: int
) -> tuple[dict[tuple[Load, str], list[Cost]], Rest]:
    taken: dict[tuple[Load, str], list[Cost]] = {}
    rest: list[Rest] = []
    for _ in range(rounds):
        now = at_rest(pair.host, pair.nic, _WAYS[0] if loads[0].vm else None)
        rest.append(now)
        for load in loads:
            making = _making(pair, load, seconds, now)
            for way in _WAYS:
                cost = _measure(pair, load, way, devices[way], seconds, now)
                less = Busy(cost.busy.host - making * cost.amount, cost.busy.nic)
                taken.setdefault((load, way), []).append(replace(cost, busy=less))
    return taken, Rest.median(rest)


def _making(pair: Pair, load: Load, seconds: int, rest: Rest) -> float:
    """Milliseconds a MiB that the host takes to make the blocks that it writes. What a guest makes is guest time."""
    if load.vm or not load.write:
        return 0.0
    cost = _measure(pair, load, "none", _NOWHERE, seconds, rest)
    return cost.busy.host / cost.amount


def _measure(pair: Pair, load: Load, way: str, device: str, seconds: int, rest: Rest) -> Cost:
    lasts = seconds + 2 * _AROUND
    files = [start_samples(each, "lo", lasts + 2 * _AROUND) for each in (pair.host, pair.nic)]
    shell: Callable[[str], str] = (
        (lambda script: pair.host.guest_shell(way, script, PATIENCE_SECONDS))
        if load.vm
        else (lambda script: pair.host.shell(script, PATIENCE_SECONDS))
    )
    said = shell(_script(load, device, lasts))
    found = re.search(r"passes (\d+) in (\d+\.\d+) (\d+\.\d+)", said)
    if found is None or found[1] == "0":
        raise RuntimeError(f"the blocks of {load.name} by {way} did not pass: {said}")
    passed = int(found[1]) * _PASS[load.kib] * load.kib / _KIB
    host, nic = (read_samples(each, file) for each, file in zip((pair.host, pair.nic), files, strict=True))
    took = rest.less(busiest(host, seconds), busiest(nic, seconds))
    return Cost(took, passed / (float(found[3]) - float(found[2])))


def _script(load: Load, device: str, seconds: int) -> str:
    if not load.write:
        ends = f"if={device} of={_NOWHERE} iflag=direct"
    elif device == _NOWHERE:
        ends = f"if=/dev/zero of={device}"
    else:
        ends = f"if=/dev/zero of={device} oflag=direct conv=fsync"
    return f"""
read a _ </proc/uptime; e=$((${{a%.*}} + {seconds})); p=0
while read b _ </proc/uptime; [ ${{b%.*}} -lt $e ]; do
dd {ends} bs={load.kib}k count={_PASS[load.kib]} 2>/dev/null || break
p=$((p + 1)); done
echo passes $p in $a $b
"""


if __name__ == "__main__":
    main()
