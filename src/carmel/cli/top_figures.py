"""Pure: from two readings of ``/metrics`` to how many CPUs host and NICs spend on what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

Labels = tuple[tuple[str, str], ...]
Reading = Mapping[tuple[str, Labels], float]
"""The value of each sample, by its name and sorted labels."""

_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_IDLE = frozenset({"idle", "iowait", "steal"})
"""Modes in which a CPU does nothing for this machine."""
_INTERRUPTS = frozenset({"irq", "softirq"})
_EMULATED = "emulated guests"
"""Threads of emulated vCPUs: to the kernel they are like any other."""


@dataclass(frozen=True, slots=True)
class Spent:
    """CPUs that were busy, on average: 0.5 is half of one. ``outside``: everything but guests, which on a host is what
    its own work and the guests' I/O cost. ``threads`` are the busiest first, and lie within ``outside``."""

    name: str
    is_nic: bool
    cpus: float
    busy: float
    guests: float
    interrupts: float
    threads: tuple[tuple[str, float], ...] = ()

    @property
    def outside(self) -> float:
        return max(0.0, self.busy - self.guests)


@dataclass(slots=True)
class _Counted:
    modes: dict[str, float] = field(default_factory=dict)
    guests: float = 0.0
    threads: dict[str, float] = field(default_factory=dict)


def read_metrics(text: str) -> Reading:
    """The samples about CPU time in Prometheus' text format; what is no sample is left out."""
    found = {}
    for line in text.splitlines():
        if not line.startswith(("carmel_node_cpu_", "carmel_smartnic_cpu_")):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        try:
            value = float(match[3])
        except ValueError:
            continue
        found[match[1], tuple(sorted(_LABEL.findall(match[2] or "")))] = value
    return found


def spent(host: str, before: Reading, after: Reading) -> list[Spent]:
    """The host first, then its NICs by name. Who was started anew in between is left out once."""
    counted: dict[str | None, _Counted] = {}
    for (name, labels), value in after.items():
        grown = value - before.get((name, labels), value)
        told = dict(labels)
        one = counted.setdefault(told.get("smartnic"), _Counted())
        if name.endswith("_cpu_seconds_total"):
            one.modes[told.get("mode", "")] = grown
        elif name.endswith("_cpu_guest_seconds_total"):
            one.guests += grown
        elif name.endswith("_cpu_thread_seconds_total"):
            one.threads[told.get("group", "")] = grown
    machines = sorted(counted.items(), key=lambda item: (item[0] is not None, item[0] or ""))
    seconds = _elapsed(before, after)
    found = (_spent(host, nic, one, seconds.get(nic)) for nic, one in machines)
    return [one for one in found if one is not None]


def _elapsed(before: Reading, after: Reading) -> dict[str | None, tuple[float, float]]:
    """CPU seconds that went by on each machine, and how many CPUs it has, of which nothing tells directly."""
    total: dict[str | None, float] = {}
    cpus: dict[str | None, float] = {}
    for (name, labels), value in after.items():
        told = dict(labels)
        if name.endswith("_cpu_seconds_total") and "mode" in told:
            nic = told.get("smartnic")
            total[nic] = total.get(nic, 0.0) + value - before.get((name, labels), value)
        elif name.endswith("_cpu_count"):
            cpus[told.get("smartnic")] = value
    return {nic: (seconds, cpus.get(nic, 0.0)) for nic, seconds in total.items()}


def _spent(host: str, nic: str | None, one: _Counted, went_by: tuple[float, float] | None) -> Spent | None:
    if went_by is None or went_by[0] <= 0 or went_by[1] <= 0 or any(value < 0 for value in one.modes.values()):
        return None
    seconds, cpus = went_by
    each = cpus / seconds
    """CPUs for each CPU second."""
    # Of threads that ended in between nobody knows what they did last.
    emulated = max(0.0, one.threads.pop(_EMULATED, 0.0))
    busy = sum(value for mode, value in one.modes.items() if mode not in _IDLE)
    threads = sorted(
        ((group, max(0.0, value) * each) for group, value in one.threads.items()), key=lambda pair: -pair[1]
    )
    return Spent(
        name=host if nic is None else nic,
        is_nic=nic is not None,
        cpus=cpus,
        busy=busy * each,
        guests=(one.guests + emulated) * each,
        interrupts=sum(value for mode, value in one.modes.items() if mode in _INTERRUPTS) * each,
        threads=tuple(pair for pair in threads if pair[1] > 0),
    )
