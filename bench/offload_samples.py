"""What a machine says of itself once a second, noted by itself, so that nobody asks it while it is measured."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tests.system.lab.machine import LabMachine

_TICK_MS = 10
"""USER_HZ is 100: /proc/stat counts hundredths of a second (proc(5))."""
_SAMPLER = """
s=/sys/class/net/{link}/statistics
(for i in $(seq {count}); do read c </proc/stat; read a <$s/rx_packets; read b <$s/tx_packets
read d <$s/rx_bytes; read e <$s/tx_bytes; echo "$(date +%s) $c $a $b $d $e"; sleep 1; done) >{file} 2>/dev/null &
"""

CYCLE_SECONDS = 10
"""What the daemons do by the clock comes that often at the least: each measurement is as long, or a multiple."""
_SETTLE_SECONDS, _REST_SECONDS = 2 * CYCLE_SECONDS, 2 * CYCLE_SECONDS
"""What was begun before, images and guests, ends first."""
_SPIN = "timeout {seconds} sh -c 'while :; do :; done'"
_SPINS = 0.5
"""CPUs: a guest that had less was not kept busy."""
_CONSOLE_SECONDS = 2
"""At either end what the console costs, by which a load is begun, is not counted."""


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
    """Since the machine's start: ``busy_ms`` without its guests, ``guest_ms`` theirs; packets and bytes from the
    function and to it."""

    second: int
    busy_ms: float
    guest_ms: float
    packets_in: int
    packets_out: int
    bytes_in: int
    bytes_out: int


Window = tuple[Sample, Sample]
"""Two samples, and all that was between them."""


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

    def less(self, host: Window, nic: Window) -> Busy:
        return Busy(busy(*host) - self.busy.host - self.vcpu * guest_share(*host), busy(*nic) - self.busy.nic)

    @classmethod
    def median(cls, of: Sequence[Rest]) -> Rest:
        return cls(
            Busy(statistics.median(one.busy.host for one in of), statistics.median(one.busy.nic for one in of)),
            statistics.median(one.noise for one in of),
            statistics.median(one.vcpu for one in of),
        )


def start_samples(of: LabMachine, link: str, count: int) -> str:
    """Begins to note ``count`` of them. Answers the file, on that machine."""
    file = f"/tmp/samples-{secrets.token_hex(4)}"
    of.shell(_SAMPLER.format(count=count, link=link, file=file))
    return file


def read_samples(of: LabMachine, file: str) -> list[Sample]:
    samples = [_sample(line.split()) for line in of.shell(f"cat {file}; rm {file}").splitlines() if " cpu " in line]
    if not samples:
        raise RuntimeError(f"{of.name} noted nothing in {file}")
    return samples


def _sample(words: list[str]) -> Sample:
    user, nice, system, _idle, _wait, irq, softirq, _steal, guest, guest_nice = map(int, words[2:12])
    busy = (user + nice + system + irq + softirq - guest - guest_nice) * _TICK_MS
    return Sample(int(words[0]), busy, (guest + guest_nice) * _TICK_MS, *map(int, words[12:16]))


def at_rest(host: LabMachine, nic: LabMachine, guest: str | None = None) -> Rest:
    """``guest``: a VM of the host, whose vCPU is kept busy for a while."""
    lasts = _SETTLE_SECONDS + _REST_SECONDS + _CONSOLE_SECONDS
    files = [start_samples(each, "lo", lasts) for each in (host, nic)]
    time.sleep(lasts + _CONSOLE_SECONDS)
    samples = [read_samples(each, file) for each, file in zip((host, nic), files, strict=True)]
    rest = Busy(*(busy(*middle(one, _SETTLE_SECONDS, _REST_SECONDS)) for one in samples))
    begins = range(CYCLE_SECONDS, _SETTLE_SECONDS + _REST_SECONDS, CYCLE_SECONDS)
    each = [busy(*middle(samples[0], one, CYCLE_SECONDS)) for one in begins]
    return Rest(rest, max(each) - min(each), _vcpu(host, guest, rest.host) if guest is not None else 0.0)


def _vcpu(host: LabMachine, guest: str, rest: float) -> float:
    file = start_samples(host, "lo", _REST_SECONDS)
    host.guest_shell(guest, _SPIN.format(seconds=_REST_SECONDS))
    counted = read_samples(host, file)[_CONSOLE_SECONDS:-_CONSOLE_SECONDS]
    window = (counted[0], counted[-1])
    guests = guest_share(*window)
    if guests < _SPINS:
        raise RuntimeError(f"{guest} was to be busy, and had {guests:.2f} of a CPU")
    # What is less than nothing is noise, which would be added to everything.
    return max(0.0, (busy(*window) - rest) / guests)


def busy(first: Sample, last: Sample) -> float:
    """Milliseconds a second between two samples."""
    return (last.busy_ms - first.busy_ms) / (last.second - first.second)


def guest_share(first: Sample, last: Sample) -> float:
    """How many CPUs the guests had."""
    return (last.guest_ms - first.guest_ms) / 1000 / (last.second - first.second)


def middle(samples: Sequence[Sample], begins: int, seconds: int) -> Window:
    """From ``begins`` seconds after the first. Not the busiest time: that would be the daemons' own, too."""
    first = next(one for one in samples if one.second >= samples[0].second + begins)
    return first, next(one for one in samples if one.second >= first.second + seconds)


def fullest(samples: Sequence[Sample], amount: Callable[[Sample, Sample], float], seconds: int) -> tuple[Window, float]:
    """The time of that length in which most came through, and how much a second."""

    def rate(ends: Window) -> float:
        return amount(*ends) / (ends[1].second - ends[0].second)

    found = max(_windows(samples, seconds), key=rate)
    if (most := rate(found)) <= 0:
        raise RuntimeError("nothing came through")
    return found, most


def _windows(samples: Sequence[Sample], seconds: int) -> list[Window]:
    """All that are ``seconds`` long, or one more."""
    return [(one, two) for one in samples for two in samples if seconds <= two.second - one.second <= seconds + 1]
