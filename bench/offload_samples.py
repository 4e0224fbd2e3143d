"""What emulated machines do: what they execute (``bench.instructions``), and what they note of themselves meanwhile, so
that nobody asks them."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bench.instructions import Counter, Counts
from tests.system.lab.machine import LabMachine

Shell = Callable[[str], str]
# read(1) of a pipe that nobody writes into waits without a process of its own, which would be counted.
_SAMPLER = """
s=/sys/class/net/{link}/statistics; mkfifo {file}.never; d="$(pidof carmeld) {still}"
(exec 3<>{file}.never; rm {file}.never; trap "mv {file}.part {file}; kill -CONT $d" EXIT; kill -STOP $d
for i in $(seq {count}); do read -r u _ </proc/uptime
read -r a <$s/rx_packets; read -r b <$s/tx_packets; read -r e <$s/rx_bytes; read -r f <$s/tx_bytes
echo "sample $u $a $b $e $f"; read -r -t 1 _ <&3; done) >{file}.part 2>/dev/null &
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
_COMPUTES = 20
"""Millions of instructions a second: a guest that had less was not kept busy."""


@dataclass(frozen=True, slots=True)
class Busy:
    """Millions of instructions a second, of each machine."""

    host: float
    nic: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What came through in a second, in the load's unit, and what both machines did meanwhile. ``waits``: the host, for
    locks."""

    busy: Busy
    amount: float
    waits: float


class Medians(NamedTuple):
    """``host``, ``nic`` and ``waits``: millions of instructions a unit; ``rate``: units a second."""

    host: float
    nic: float
    rate: float
    waits: float


def medians(costs: Sequence[Cost]) -> Medians:
    return Medians(
        statistics.median(one.busy.host / one.amount for one in costs),
        statistics.median(one.busy.nic / one.amount for one in costs),
        statistics.median(one.amount for one in costs),
        statistics.median(one.waits / one.amount for one in costs),
    )


def ratio(first: float, second: float, noise: float) -> str:
    """No more than can be said: what is less than the noise may be as much as that."""
    if first <= noise:
        return "too little to be measured"
    return f"{first / second:.1f}" if second > noise else f"over {first / noise:.1f}"


class Sample(NamedTuple):
    """Since the machine's start: ``second``; packets and bytes from the function and to it."""

    second: float
    packets_in: int
    packets_out: int
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class Noted:
    """Of one machine. ``samples``: its own, one a second. ``counts``: read here as often, with the second of this
    machine's clock."""

    samples: list[Sample]
    counts: list[tuple[float, Counts]]

    def part(self, begins: int, ends: int) -> Noted:
        """From one second to another."""
        return Noted(self.samples[begins : ends + 1], self.counts[begins : ends + 1])

    @property
    def guests(self) -> float:
        """Millions of instructions a second of its guests."""
        (first, before), (last, after) = self.counts[0], self.counts[-1]
        return (after.guests - before.guests) / (last - first)

    @property
    def waits(self) -> float:
        """For locks."""
        (first, before), (last, after) = self.counts[0], self.counts[-1]
        return (after.waits - before.waits) / (last - first)

    @property
    def own(self) -> float:
        """Without its guests, and without waiting."""
        (first, before), (last, after) = self.counts[0], self.counts[-1]
        return (after.own - before.own) / (last - first)


@dataclass(frozen=True, slots=True)
class Rest:
    """What both machines do when nobody asks them for anything, which is taken off.

    ``spinning``: what the host does while its guest computes and asks for nothing, its guest's time not counted, and
    ``guest`` the guest's. Timer ticks end a vCPU's time in the guest hundreds of times a second, and a guest that is
    idle is woken and put to sleep: traffic causes neither. ``noise``: how far what the host does at times, idle or
    computing, is from each other. All in millions of instructions a second.
    """

    idle: Busy
    noise: float
    spinning: float = 0.0
    guest: float = 0.0

    def less(self, host: Noted, nic: Noted) -> Busy:
        spins = min(1.0, host.guests / self.guest) if self.guest else 0.0
        rest = self.idle.host + (self.spinning - self.idle.host) * spins
        return Busy(host.own - rest, nic.own - self.idle.nic)

    @classmethod
    def of_all(cls, rests: Sequence[Rest]) -> Rest:
        """The medians, and the most noise that there was."""
        return cls(
            Busy(statistics.median(one.idle.host for one in rests), statistics.median(one.idle.nic for one in rests)),
            max(one.noise for one in rests),
            statistics.median(one.spinning for one in rests),
            statistics.median(one.guest for one in rests),
        )

    def __str__(self) -> str:
        said = f"the host {self.idle.host:.2f} million a second, the NIC {self.idle.nic:.2f}"
        if self.guest:
            said += f"; the host {self.spinning:.2f} while its guest computes"
        return f"{said} (medians). What the host does at rest differs by {self.noise:.2f} million a second"


@dataclass(frozen=True, slots=True)
class Watched:
    """A machine, one of its interfaces, and processes that stand still meanwhile, as its daemon does (SIGSTOP).

    No packet and no block needs a daemon, and what it does by the clock differs more from time to time than the
    cheapest way costs.
    """

    machine: LabMachine
    link: str = "lo"
    still: tuple[int, ...] = ()


def watch(seconds: int, *all_watched: Watched) -> list[Noted]:
    """What each of the machines does for so long."""
    counters = [Counter.of(each.machine) for each in all_watched]
    files = [
        begin_noting(each.machine.shell, each.link, seconds, " ".join(map(str, each.still))) for each in all_watched
    ]
    readings: list[list[tuple[float, Counts]]] = [[] for _ in all_watched]
    began = time.monotonic()
    for second in range(seconds + 1):
        time.sleep(max(0.0, began + second - time.monotonic()))
        for reading, counter in zip(readings, counters, strict=True):
            reading.append((time.monotonic(), counter.read()))
    samples = [read_notes(each.machine.shell, file) for each, file in zip(all_watched, files, strict=True)]
    return [Noted(*both) for both in zip(samples, readings, strict=True)]


def begin_noting(shell: Shell, link: str, seconds: int, still: str = "") -> str:
    """A machine or a guest notes what passes ``link``, once a second, for a moment longer than ``seconds``. Answers the
    file there that has it in the end."""
    file = f"/tmp/samples-{secrets.token_hex(4)}"
    shell(_SAMPLER.format(count=seconds + 2, link=link, file=file, still=still))
    return file


def read_notes(shell: Shell, file: str) -> list[Sample]:
    """Waits for it."""
    said = shell(_READER.format(file=file))
    samples = [_sample(line.split()) for line in said.splitlines() if line.startswith("sample ")]
    if len(samples) < 2:
        raise RuntimeError(f"nothing was noted in {file}: {said}")
    return samples


def _sample(words: list[str]) -> Sample:
    """``sample``, the time, and the interface's four counters."""
    return Sample(float(words[1]), *map(int, words[2:6]))


def at_rest(host: Watched, nic: Watched, seconds: int, guest: str | None = None) -> Rest:
    """``seconds``: of a run. ``guest``: a VM of the host, which is kept busy for a while."""
    time.sleep(_SETTLE_SECONDS)
    noted = watch(_PARTS * seconds, host, nic)
    idle = Busy(*(each.own for each in noted))
    noise = _spread(noted[0], seconds)
    if guest is None:
        return Rest(idle, noise)
    computes = _spinning(host, guest, _PARTS * seconds)
    if computes.guests < _COMPUTES:
        raise RuntimeError(f"{guest} was to compute, and did {computes.guests:.1f} million instructions a second")
    return Rest(idle, max(noise, _spread(computes, seconds)), computes.own, computes.guests)


def _spread(noted: Noted, seconds: int) -> float:
    """How far times of that length are from each other, in millions of instructions a second."""
    own = [noted.part(part * seconds, (part + 1) * seconds).own for part in range(_PARTS)]
    return max(own) - min(own)


def _spinning(host: Watched, guest: str, seconds: int) -> Noted:
    host.machine.guest_shell(guest, _SPIN.format(seconds=seconds + _SPIN_BEFORE + _SPIN_AFTER))
    time.sleep(_SPIN_BEFORE)
    (noted,) = watch(seconds, host)
    host.machine.guest_shell(guest, "while pidof timeout; do sleep 0.2; done")
    return noted
