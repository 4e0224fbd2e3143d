"""What a machine says of itself once a second, noted by itself, so that nobody asks it while it is measured."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tests.system.lab.machine import LabMachine

_TICK_MS = 10
"""USER_HZ is 100: /proc/stat counts hundredths of a second (proc(5))."""
# read(1) of a pipe that nobody writes into waits without a process of its own, which would be counted.
_SAMPLER = """
s=/sys/class/net/{link}/statistics; mkfifo {file}.never; d=$(pidof carmeld)
(exec 3<>{file}.never; rm {file}.never; trap "kill -CONT $d; mv {file}.part {file}" EXIT; kill -STOP $d
for i in $(seq {count}); do read -r u _ </proc/uptime; read -r c </proc/stat
read -r a <$s/rx_packets; read -r b <$s/tx_packets; read -r e <$s/rx_bytes; read -r f <$s/tx_bytes
echo "sample $u $c $a $b $e $f"; read -r -t 1 _ <&3; done) >{file}.part 2>/dev/null &
"""
_READER = "until [ -e {file} ]; do sleep 0.2; done; cat {file}; rm {file}"

SECONDS = 10
"""As long as each run counts, if nothing else is said."""
_SETTLE_SECONDS = 20
"""What was begun before, images and guests, ends first."""
_REST_PARTS = 4
"""At rest as many times are compared with each other, each as long as a run."""
_SPIN = "timeout {seconds} sh -c 'while :; do :; done' >/dev/null 2>&1 &"
_SPIN_BEFORE, _SPIN_AFTER = 2, 10
_SPINS = 0.5
"""CPUs: a guest that had less was not kept busy."""


@dataclass(frozen=True, slots=True)
class Busy:
    """CPU milliseconds a second, of each machine."""

    host: float
    nic: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What came through in a second, in the load's unit, and what both machines did meanwhile."""

    busy: Busy
    amount: float


class Medians(NamedTuple):
    """``host`` and ``nic``: milliseconds a unit; ``rate``: units a second."""

    host: float
    nic: float
    rate: float


def medians(costs: Sequence[Cost]) -> Medians:
    return Medians(
        statistics.median(one.busy.host / one.amount for one in costs),
        statistics.median(one.busy.nic / one.amount for one in costs),
        statistics.median(one.amount for one in costs),
    )


def ratio(first: float, second: float, noise: float) -> str:
    """No more than can be said: what is less than the noise may be as much as that."""
    if first <= noise:
        return "too little to be measured"
    return f"{first / second:.1f}" if second > noise else f"over {first / noise:.1f}"


class Sample(NamedTuple):
    """Since the machine's start: ``second``, ``busy_ms`` without its guests, ``guest_ms`` theirs; packets and bytes
    from the function and to it."""

    second: float
    busy_ms: float
    guest_ms: float
    packets_in: int
    packets_out: int
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class Rest:
    """What is taken off, as no load causes it. ``busy``: what both machines do when nobody asks them for anything.

    ``vcpu``: milliseconds that a second of a guest's time costs its host, though the guest asks for nothing. Timer
    ticks alone end a vCPU's time in the guest hundreds of times a second, and to go back costs much in emulation.
    ``noise``: how far the host's own times at rest are from each other, in milliseconds a second.
    """

    busy: Busy
    noise: float
    vcpu: float = 0.0

    def less(self, host: Sequence[Sample], nic: Sequence[Sample]) -> Busy:
        return Busy(busy(host) - self.busy.host - self.vcpu * guest_share(host), busy(nic) - self.busy.nic)

    @classmethod
    def of_all(cls, rests: Sequence[Rest]) -> Rest:
        """The medians, and the most noise that there was."""
        return cls(
            Busy(statistics.median(one.busy.host for one in rests), statistics.median(one.busy.nic for one in rests)),
            max(one.noise for one in rests),
            statistics.median(one.vcpu for one in rests),
        )


def watch(seconds: int, *machines: tuple[LabMachine, str]) -> list[list[Sample]]:
    """What each of the machines notes of itself, and of one of its interfaces, for so long.

    Their daemons stand still meanwhile (SIGSTOP): no packet and no block needs them, and what they do by the clock
    differs more from time to time than the cheapest way costs.
    """
    files = [_start(of, link, seconds + 1) for of, link in machines]
    return [_read(of, file) for (of, _link), file in zip(machines, files, strict=True)]


def _start(of: LabMachine, link: str, count: int) -> str:
    """Begins to note ``count`` of them. Answers the file, on that machine, that is there when it is whole."""
    file = f"/tmp/samples-{secrets.token_hex(4)}"
    of.shell(_SAMPLER.format(count=count, link=link, file=file))
    return file


def _read(of: LabMachine, file: str) -> list[Sample]:
    said = of.shell(_READER.format(file=file))
    samples = [_sample(line.split()) for line in said.splitlines() if line.startswith("sample ")]
    if len(samples) < 2:
        raise RuntimeError(f"{of.name} noted nothing in {file}: {said}")
    return samples


def _sample(words: list[str]) -> Sample:
    """``sample``, the time, ``cpu`` and its ten counters, and the interface's four."""
    user, nice, system, _idle, _wait, irq, softirq, _steal, guest, guest_nice = map(int, words[3:13])
    busy = (user + nice + system + irq + softirq - guest - guest_nice) * _TICK_MS
    return Sample(float(words[1]), busy, (guest + guest_nice) * _TICK_MS, *map(int, words[13:17]))


def at_rest(host: LabMachine, nic: LabMachine, seconds: int, guest: str | None = None) -> Rest:
    """``seconds``: of a run. ``guest``: a VM of the host, whose vCPU is kept busy for a while."""
    time.sleep(_SETTLE_SECONDS)
    noted = watch(_REST_PARTS * seconds, (host, "lo"), (nic, "lo"))
    ends = [noted[0][part * seconds : (part + 1) * seconds + 1] for part in range(_REST_PARTS)]
    times = [busy(each) for each in ends]
    rest = Busy(*(busy(each) for each in noted))
    # Less than a tick in all that time is nothing that can be seen.
    noise = max(max(times) - min(times), _TICK_MS / seconds)
    return Rest(rest, noise, _vcpu(host, guest, seconds, rest.host) if guest is not None else 0.0)


def _vcpu(host: LabMachine, guest: str, seconds: int, rest: float) -> float:
    host.guest_shell(guest, _SPIN.format(seconds=seconds + _SPIN_BEFORE + _SPIN_AFTER))
    time.sleep(_SPIN_BEFORE)
    (samples,) = watch(seconds, (host, "lo"))
    host.guest_shell(guest, "while pidof timeout; do sleep 0.2; done")
    guests = guest_share(samples)
    if guests < _SPINS:
        raise RuntimeError(f"{guest} was to be busy, and had {guests:.2f} of a CPU")
    # What is less than nothing is noise, which would be added to everything.
    return max(0.0, (busy(samples) - rest) / guests)


def busy(samples: Sequence[Sample]) -> float:
    """Milliseconds a second between the first and the last."""
    return (samples[-1].busy_ms - samples[0].busy_ms) / (samples[-1].second - samples[0].second)


def guest_share(samples: Sequence[Sample]) -> float:
    """How many CPUs the guests had."""
    return (samples[-1].guest_ms - samples[0].guest_ms) / 1000 / (samples[-1].second - samples[0].second)
