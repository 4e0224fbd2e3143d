"""Metrics in Prometheus' text format (exposition format 0.0.4).

prometheus_client would cost 14 MB of memory; what is needed of it is a counter, a histogram and this much text.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import sys
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MAX_SERIES = 2000
_STARTED = "process_start_time_seconds"

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of one metric."""

    name: str
    value: float
    labels: Labels = ()


@dataclass(frozen=True, slots=True)
class Family:
    """A metric with its samples, as another room gives it at the moment of scraping."""

    name: str
    type: str
    help: str
    samples: tuple[Sample, ...]


@dataclass(slots=True)
class _Histogram:
    counts: list[int] = field(default_factory=lambda: [0] * (len(_BUCKETS) + 1))
    total: float = 0.0


class Metrics:
    """What the API server counts, and whatever else is registered.

    The number of series is bounded: labels come from our own vocabulary, never from what clients send.
    """

    def __init__(self) -> None:
        self._requests: dict[Labels, int] = {}
        self._durations: dict[Labels, _Histogram] = {}
        self._sources: list[Callable[[], Iterable[Family]]] = []
        self._waited_for: list[Callable[[], Awaitable[Iterable[Family]]]] = []
        self._started = time.time()

    def register(self, source: Callable[[], Iterable[Family]]) -> None:
        """Ask ``source`` at every scrape. It must answer from memory."""
        self._sources.append(source)

    def register_waited_for(self, source: Callable[[], Awaitable[Iterable[Family]]]) -> None:
        """The same of one that has to look first: off the event loop, and not for long."""
        self._waited_for.append(source)

    async def waited_for(self) -> list[Family]:
        """What those sources say now."""
        found = await asyncio.gather(*(source() for source in self._waited_for))
        return [family for families in found for family in families]

    def observe(self, verb: str, resource_name: str, code: int, seconds: float) -> None:
        """One request was answered. Long-lived ones (watch, console) count without their duration."""
        labels: Labels = (("code", str(code)), ("resource", resource_name), ("verb", verb))
        if labels not in self._requests and len(self._requests) >= _MAX_SERIES:
            return
        self._requests[labels] = self._requests.get(labels, 0) + 1
        if verb in {"watch", "connect"}:
            return
        histogram = self._durations.setdefault(labels[1:], _Histogram())
        histogram.counts[bisect_left(_BUCKETS, seconds)] += 1
        histogram.total += seconds

    def render(self, extra: Iterable[Family] = (), *, only: tuple[str, ...] | None = None) -> bytes:
        """All there is, or ``only`` what is called so at its beginning."""
        families = [self._request_family(), self._duration_family(), *_process(self._started), *extra]
        for source in self._sources:
            families += source()
        if only is not None:
            families = [family for family in families if family.name.startswith(only)]
        lines = [line for family in families for line in _lines(family)]
        return ("\n".join(lines) + "\n").encode()

    def _request_family(self) -> Family:
        name = "carmel_apiserver_requests_total"
        samples = tuple(Sample(name, count, labels) for labels, count in self._requests.items())
        return Family(name, "counter", "Requests answered, by verb, resource and HTTP status.", samples)

    def _duration_family(self) -> Family:
        name = "carmel_apiserver_request_duration_seconds"
        samples: list[Sample] = []
        for labels, histogram in self._durations.items():
            running = 0
            for bound, count in zip((*_BUCKETS, float("inf")), histogram.counts, strict=True):
                running += count
                samples.append(Sample(f"{name}_bucket", running, (*labels, ("le", _number(bound)))))
            samples.append(Sample(f"{name}_sum", histogram.total, labels))
            samples.append(Sample(f"{name}_count", running, labels))
        return Family(name, "histogram", "How long requests took, streams not counted.", tuple(samples))


def gauge(name: str, help_text: str, values: Mapping[Labels, float] | float) -> Family:
    """A gauge with one value, or one for each set of labels."""
    pairs = values if isinstance(values, Mapping) else {(): values}
    return Family(name, "gauge", help_text, tuple(Sample(name, value, labels) for labels, value in pairs.items()))


def _process(started: float) -> list[Family]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cpu = "process_cpu_seconds_total"
    seconds = Sample(cpu, usage.ru_utime + usage.ru_stime)
    return [
        Family(cpu, "counter", "CPU time used, user and system.", (seconds,)),
        gauge("process_resident_memory_bytes", "Resident memory.", _resident_bytes(usage.ru_maxrss)),
        gauge("process_open_fds", "Open file descriptors.", _open_files()),
        gauge(_STARTED, "When the process began, in seconds since 1970.", started),
    ]


def _resident_bytes(peak: int) -> int:
    """Now on Linux (proc_pid_statm(5)); elsewhere the peak, which getrusage(2) gives in bytes on macOS."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return peak if sys.platform == "darwin" else peak * 1024


def _open_files() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(folder)) - 1  # noqa: PTH208 - only the number is wanted
        except OSError:
            continue
    return 0


def _lines(family: Family) -> Iterable[str]:
    yield f"# HELP {family.name} {family.help}"
    yield f"# TYPE {family.name} {family.type}"
    for sample in family.samples:
        labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in sample.labels)
        yield (
            f"{sample.name}{{{labels}}} {_number(sample.value)}" if labels else f"{sample.name} {_number(sample.value)}"
        )


def _escaped(value: str) -> str:
    return re.sub(r'[\\"\n]', lambda match: {"\n": r"\n"}.get(match[0], "\\" + match[0]), value)


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(float(value))
