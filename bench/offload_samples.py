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
"""USER_HZ is 100: /proc/stat counts hundredths of a second (proc(5)). Idle time in it is exact, as the clock does not
tick then (Linux's fs/proc/stat.c)."""
# read(1) of a pipe that nobody writes into waits without a process of its own, which would be counted.
_SAMPLER = """
s=/sys/class/net/{link}/statistics; mkfifo {file}.never; d="$(pidof carmeld) {still}"; n=$(nproc)
(exec 3<>{file}.never; rm {file}.never; trap "kill -CONT $d; mv {file}.part {file}" EXIT; kill -STOP $d
for i in $(seq {count}); do read -r u _ </proc/uptime; read -r c </proc/stat
read -r a <$s/rx_packets; read -r b <$s/tx_packets; read -r e <$s/rx_bytes; read -r f <$s/tx_bytes
echo "sample $u $n $c $a $b $e $f"; read -r -t 1 _ <&3; done) >{file}.part 2>/dev/null &
"""
_READER = "until [ -e {file} ]; do sleep 0.2; done; cat {file}; rm {file}"

SECONDS = 10
"""As long as each run counts, if nothing else is said."""
_SETTLE_SECONDS = 15
"""What was begun before, images and guests, ends first."""
_PARTS = 3
"""So many times a run's length, which are compared with each other."""
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
    """What both machines do when nobody asks them for anything, which is taken off.

    ``spinning``: what the host does while its guest computes and asks for nothing, its guest's time not counted, and
    ``share`` the CPUs that the guest has then. Timer ticks end a vCPU's time in the guest hundreds of times a second,
    and a guest that is idle is woken and put to sleep: both cost much in emulation, and traffic causes neither.
    ``noise``: how far the host's own times, idle or computing, are from each other, in milliseconds a second.
    """

    idle: Busy
    noise: float
    spinning: float = 0.0
    share: float = 0.0

    def less(self, host: Sequence[Sample], nic: Sequence[Sample]) -> Busy:
        spins = min(1.0, guest_share(host) / self.share) if self.share else 0.0
        rest = self.idle.host + (self.spinning - self.idle.host) * spins
        return Busy(busy(host) - rest, busy(nic) - self.idle.nic)

    @classmethod
    def of_all(cls, rests: Sequence[Rest]) -> Rest:
        """The medians, and the most noise that there was."""
        return cls(
            Busy(statistics.median(one.idle.host for one in rests), statistics.median(one.idle.nic for one in rests)),
            max(one.noise for one in rests),
            statistics.median(one.spinning for one in rests),
            statistics.median(one.share for one in rests),
        )

    def __str__(self) -> str:
        said = f"the host {self.idle.host:.0f} ms a second, the NIC {self.idle.nic:.0f} ms"
        if self.share:
            said += f"; the host {self.spinning:.0f} ms while its guest computes"
        return f"{said} (medians). What the host takes at rest differs by {self.noise:.1f} ms a second"


@dataclass(frozen=True, slots=True)
class Watched:
    """A machine, one of its interfaces, and processes that stand still meanwhile, as its daemon does (SIGSTOP).

    No packet and no block needs a daemon, and what it does by the clock differs more from time to time than the
    cheapest way costs.
    """

    machine: LabMachine
    link: str = "lo"
    still: tuple[int, ...] = ()


def watch(seconds: int, *all_watched: Watched) -> list[list[Sample]]:
    """What each of the machines notes of itself for so long."""
    files = [_start(each, seconds + 1) for each in all_watched]
    return [_read(each.machine, file) for each, file in zip(all_watched, files, strict=True)]


def _start(of: Watched, count: int) -> str:
    """Begins to note ``count`` of them. Answers the file, on that machine, that is there when it is whole."""
    file = f"/tmp/samples-{secrets.token_hex(4)}"
    still = " ".join(map(str, of.still))
    of.machine.shell(_SAMPLER.format(count=count, link=of.link, file=file, still=still))
    return file


def _read(of: LabMachine, file: str) -> list[Sample]:
    said = of.shell(_READER.format(file=file))
    samples = [_sample(line.split()) for line in said.splitlines() if line.startswith("sample ")]
    if len(samples) < 2:
        raise RuntimeError(f"{of.name} noted nothing in {file}: {said}")
    return samples


def _sample(words: list[str]) -> Sample:
    """``sample``, the time, how many CPUs, ``cpu`` and its ten counters, and the interface's four.

    What is not idle is busy: idle time is measured, the others are what timer ticks found, and what a timer wakes is
    found by each of them.
    """
    second, cpus = float(words[1]), int(words[2])
    idle, wait, guest, guest_nice = (int(words[4 + index]) * _TICK_MS for index in (3, 4, 8, 9))
    guests = guest + guest_nice
    return Sample(second, 1000 * second * cpus - idle - wait - guests, guests, *map(int, words[14:18]))


def at_rest(host: Watched, nic: Watched, seconds: int, guest: str | None = None) -> Rest:
    """``seconds``: of a run. ``guest``: a VM of the host, which is kept busy for a while."""
    time.sleep(_SETTLE_SECONDS)
    noted = watch(_PARTS * seconds, host, nic)
    idle = Busy(*(busy(each) for each in noted))
    noise = _spread(noted[0], seconds)
    if guest is None:
        return Rest(idle, noise)
    samples = _spinning(host, guest, _PARTS * seconds)
    if (share := guest_share(samples)) < _SPINS:
        raise RuntimeError(f"{guest} was to be busy, and had {share:.2f} of a CPU")
    return Rest(idle, max(noise, _spread(samples, seconds)), busy(samples), share)


def _spread(samples: Sequence[Sample], seconds: int) -> float:
    """How far times of that length are from each other, in milliseconds a second."""
    parts = [samples[part * seconds : (part + 1) * seconds + 1] for part in range(_PARTS)]
    times = [busy(each) for each in parts]
    # Less than a tick in all that time is nothing that can be seen.
    return max(max(times) - min(times), _TICK_MS / seconds)


def _spinning(host: Watched, guest: str, seconds: int) -> list[Sample]:
    host.machine.guest_shell(guest, _SPIN.format(seconds=seconds + _SPIN_BEFORE + _SPIN_AFTER))
    time.sleep(_SPIN_BEFORE)
    (samples,) = watch(seconds, host)
    host.machine.guest_shell(guest, "while pidof timeout; do sleep 0.2; done")
    return samples


def busy(samples: Sequence[Sample]) -> float:
    """Milliseconds a second between the first and the last."""
    return (samples[-1].busy_ms - samples[0].busy_ms) / (samples[-1].second - samples[0].second)


def guest_share(samples: Sequence[Sample]) -> float:
    """How many CPUs the guests had."""
    return (samples[-1].guest_ms - samples[0].guest_ms) / 1000 / (samples[-1].second - samples[0].second)
