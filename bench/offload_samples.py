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


_REST_SECONDS = 20
"""What the daemons do by the clock comes every 10 s at the most."""


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


def ratio(first: float, second: float) -> str:
    """Below 0 is the noise of a machine at rest."""
    return f"{first / second:.1f}" if second > 0 else "too little to be measured"


class Sample(NamedTuple):
    """``busy_ms`` since the machine's start, without its guests; packets and bytes from the function and to it."""

    second: int
    busy_ms: float
    packets_in: int
    packets_out: int
    bytes_in: int
    bytes_out: int


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
    return Sample(int(words[0]), busy, *map(int, words[12:16]))


def at_rest(host: LabMachine, nic: LabMachine) -> Busy:
    """What both do when nobody asks them for anything."""
    files = [start_samples(each, "lo", _REST_SECONDS + 2) for each in (host, nic)]
    time.sleep(_REST_SECONDS + 4)
    one, other = (read_samples(each, file) for each, file in zip((host, nic), files, strict=True))
    # The first seconds are those of the console that began it.
    return Busy(busy(one[2], one[-1]), busy(other[2], other[-1]))


def busy(first: Sample, last: Sample) -> float:
    """Milliseconds a second between two samples."""
    return (last.busy_ms - first.busy_ms) / (last.second - first.second)


def busiest(samples: Sequence[Sample], seconds: int) -> float:
    """Milliseconds a second in the busiest time of that length."""
    return max(
        busy(one, two) for one in samples for two in samples if seconds <= two.second - one.second <= seconds + 1
    )


def window(
    samples: Sequence[Sample], amount: Callable[[Sample, Sample], float], seconds: int
) -> tuple[Sample, Sample, float]:
    """Of all that are ``seconds`` long, or one more, the one in which most came through, and how much a second."""

    def rate(first: Sample, last: Sample) -> float:
        return amount(first, last) / (last.second - first.second)

    windows = [(one, two) for one in samples for two in samples if seconds <= two.second - one.second <= seconds + 1]
    first, last = max(windows, key=lambda ends: rate(*ends))
    if (most := rate(first, last)) <= 0:
        raise RuntimeError("nothing came through")
    return first, last, most
