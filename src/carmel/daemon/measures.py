"""The controllers' measurements, and the machine's CPU time, in the API server's shape."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from carmel.apiserver import metrics
from carmel.controllers.runtime import Sample

_STAT = Path("/proc/stat")
_MODES = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
"""The columns of /proc/stat (proc_stat(5)), as node_exporter calls them. Guests' time, which is in user, is left in."""


def families(samples: Iterable[Sample]) -> list[metrics.Family]:
    """One family a name, with the samples of all controllers together, as the exposition format wants it."""
    gathered: dict[str, list[Sample]] = {}
    for sample in samples:
        gathered.setdefault(sample.family, []).append(sample)
    return [
        metrics.Family(
            name,
            found[0].type,
            found[0].help,
            tuple(metrics.Sample(one.name, one.value, one.labels) for one in found),
        )
        for name, found in gathered.items()
    ]


def node_cpu(stat: Path = _STAT) -> metrics.Family:
    """All of the machine's CPUs together, in seconds since it booted. No sample where there is no /proc."""
    name = "carmel_node_cpu_seconds_total"
    try:
        ticks = stat.read_text("ascii").splitlines()[0].split()[1:]
    except (OSError, IndexError):
        ticks = []
    a_second = os.sysconf("SC_CLK_TCK")
    samples = tuple(
        metrics.Sample(name, int(count) / a_second, (("mode", mode),))
        for mode, count in zip(_MODES, ticks, strict=False)
    )
    return metrics.Family(name, "counter", "CPU time of the whole machine, by what it was spent on.", samples)
