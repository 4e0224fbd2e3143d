"""What a SmartNIC takes from its host: instructions for remote storage, by the host's own initiator and by the NIC's.

``tcp``: the host's kernel speaks NVMe over TCP with the target. ``nic``: the NIC's does, and the host has an NVMe
function. The host itself reads and writes blocks; and a VM does, on a Volume of a datastore there, and on a function of
its own (vfio-pci). None of it goes through the host's page cache. Instructions as in ``bench.offload``: of emulated
machines, without their guests', less what they execute at rest; and of the host's own blocks less what the same program
does with a disk that does nothing (null_blk, in the same round): what is left is the way to the disk. The target runs
on the NIC either way, and is counted there. The emulation has a shortcut: the NVMe controller is the outer QEMU's, not
the NIC's.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.harness import machine, table
from bench.instructions import Counter, counting
from bench.offload_samples import SECONDS, Busy, Cost, Rest, at_rest, medians, ratio, watch
from bench.offload_storage_lab import NOTHING, PATIENCE_SECONDS, Disks, drives, guests
from tests.daemon import running_daemon
from tests.full.smartnic.pair import lab_pair

_WAYS = ("tcp", "nic")
_NO_WAY = "none"
_KIB = 1024
_PASS = {128: 32, 4: 128}
"""How many blocks of so many KiB are asked for before it is looked at the clock."""
_BEFORE_SECONDS = 2
"""Until a load runs steadily."""
_AROUND = 6
"""Seconds of it besides those that count: two machines are told to begin to note, one after the other."""
_FILES = "/tmp/passes"
_RESULT = f"until [ -e {_FILES}-all ]; do sleep 0.2; done; cat {_FILES}-all"


@dataclass(frozen=True, slots=True)
class Load:
    """``kib``: a block. ``vm``: whose blocks they are: a VM's, or the host's own. ``depth``: that are under way at a
    time, each asked for by a process of its own."""

    kib: int
    write: bool
    depth: int = 1
    vm: bool = False

    @property
    def name(self) -> str:
        who, what = "a VM" if self.vm else "the host", "writes" if self.write else "reads"
        return f"{who} {what}, {self.kib} KiB, {self.depth} at a time"


_Taken = dict[tuple[Load, str], list[Cost]]
"""By load and way."""

_HOSTS = tuple(
    Load(kib, write, depth) for kib, most in ((128, 4), (4, 8)) for depth in (1, most) for write in (False, True)
)
_VMS = tuple(replace(load, vm=True) for load in _HOSTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=SECONDS, help="that count of each run")
    arguments = parser.parse_args()
    print(f"Measured on {machine()} by `python -m bench.offload_storage`.\n")
    with (
        counting() as environ,
        running_daemon(environ=environ) as outer,
        tempfile.TemporaryDirectory() as home,
        lab_pair(outer, Path(home)) as pair,
    ):
        for each in (pair.host, pair.nic):
            Counter.of(each).tell_kernel(each)
        for title, loads, disks in (("the host's own blocks", _HOSTS, drives), ("a VM's blocks", _VMS, guests)):
            taken, rest = _taken(disks(pair), loads, arguments.rounds, arguments.seconds)
            _show(title, loads, taken, rest)
        pair.host.delete_all_vms()


def _show(title: str, loads: Sequence[Load], taken: _Taken, rest: Mapping[str, Rest]) -> None:
    rows = [_row(load, taken, rest["nic"]) for load in loads]
    head = (
        "blocks", "host, NVMe/TCP of its own", "host, NVMe of the NIC", "host's ratio", "host, the program",
        "its waiting, of its own", "of the NIC", "NIC, target only", "NIC, offloaded", "MiB a second, of its own",
        "of the NIC",
    )  # fmt: skip
    print(table(f"Remote storage: {title} (millions of instructions a MiB, medians)", rows, head))
    for way, name in zip(_WAYS, ("NVMe/TCP of its own", "NVMe of the NIC"), strict=True):
        print(f"{name}: less what they do at rest, {rest[way]}.")
    print("The host's own blocks: less the program. Below 0 is noise.\n", flush=True)


def _row(load: Load, taken: _Taken, rest: Rest) -> tuple[str, ...]:
    one, other = (medians(taken[load, way]) for way in _WAYS)
    hosts = ratio(one.host, other.host, rest.noise / other.rate)
    program = "the guest's" if load.vm else f"{medians(taken[load, _NO_WAY]).host:.2f}"
    return (
        load.name, f"{one.host:.2f}", f"{other.host:.2f}", hosts, program, f"{one.waits:.2f}",
        f"{other.waits:.2f}", f"{one.nic:.2f}", f"{other.nic:.2f}", f"{one.rate:.1f}", f"{other.rate:.1f}",
    )  # fmt: skip


# -- what is measured --------------------------------------------------------------------------------------------------
def _taken(disks: Disks, loads: Sequence[Load], rounds: int, seconds: int) -> tuple[_Taken, dict[str, Rest]]:
    taken: _Taken = {}
    rests: dict[str, list[Rest]] = {way: [] for way in _WAYS}
    for _ in range(rounds):
        for way, rest in _at_rest(disks, seconds).items():
            rests[way].append(rest)
        for load in loads:
            # What a guest's program does is not the host's.
            program = 0.0
            if not load.vm:
                alone = _measure(disks, load, _NO_WAY, seconds, rests[_WAYS[0]][-1])
                taken.setdefault((load, _NO_WAY), []).append(alone)
                program = alone.busy.host / alone.amount
            for way in _WAYS:
                cost = _measure(disks, load, way, seconds, rests[way][-1])
                less = Busy(cost.busy.host - program * cost.amount, cost.busy.nic)
                taken.setdefault((load, way), []).append(replace(cost, busy=less))
                print(f"{load.name}, {way}: {taken[load, way][-1]}", file=sys.stderr, flush=True)
    return taken, {way: Rest.of_all(of) for way, of in rests.items()}


def _at_rest(disks: Disks, seconds: int) -> dict[str, Rest]:
    """By way; the host without guests has one rest."""
    if not disks.pids:
        return dict.fromkeys(_WAYS, at_rest(*disks.watched(_NO_WAY), seconds))
    return {way: at_rest(*disks.watched(way), seconds, way) for way in _WAYS}


def _measure(disks: Disks, load: Load, way: str, seconds: int, rest: Rest) -> Cost:
    host = disks.pair.host
    shell: Callable[[str], str] = (
        (lambda script: host.guest_shell(way, script, PATIENCE_SECONDS))
        if load.vm
        else (lambda script: host.shell(script, PATIENCE_SECONDS))
    )
    shell(_script(load, disks.devices.get(way, NOTHING), _BEFORE_SECONDS + seconds + _AROUND))
    time.sleep(_BEFORE_SECONDS)
    samples = watch(seconds, *disks.watched(way))
    said = shell(_RESULT)
    found = re.search(r"passes (\d+) in (\d+\.\d+) (\d+\.\d+)", said)
    if found is None or found[1] == "0":
        raise RuntimeError(f"the blocks of {load.name} by {way} did not pass: {said}")
    passed = int(found[1]) * _PASS[load.kib] * load.kib / _KIB
    return Cost(rest.less(*samples), passed / (float(found[3]) - float(found[2])), samples[0].waits)


def _script(load: Load, device: str, seconds: int) -> str:
    """In the background. Each process has a part of the disk of its own."""
    count = _PASS[load.kib]
    at = f"$((j * {count}))"
    ends = (
        f"if=/dev/zero of={device} seek={at} oflag=direct conv=fsync"
        if load.write
        else f"if={device} of=/dev/null skip={at} iflag=direct"
    )
    return f"""
rm -f {_FILES}*
(read -r a _ </proc/uptime; e=$((${{a%.*}} + {seconds})); jobs=
for j in $(seq 0 {load.depth - 1}); do
(while read -r b _ </proc/uptime; [ ${{b%.*}} -lt $e ]; do
dd {ends} bs={load.kib}k count={count} 2>/dev/null || break
echo; done >{_FILES}$j) & jobs="$jobs $!"
done; wait $jobs; read -r b _ </proc/uptime
n=$(cat {_FILES}[0-9] | wc -l); echo passes $n in $a $b >{_FILES}-part
mv {_FILES}-part {_FILES}-all) </dev/null >/dev/null 2>&1 &
"""


if __name__ == "__main__":
    main()
