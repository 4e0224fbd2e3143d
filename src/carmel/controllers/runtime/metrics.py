"""What the controllers measure of themselves, in the shapes of the Prometheus exposition format."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field

BUCKETS = (0.001, 0.005, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0)
"""Seconds of a pass: from a look that finds nothing to do, up to a guest that takes its time."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of ``/metrics``: ``type`` and ``help`` belong to the family ``name`` without its suffix."""

    family: str
    type: str
    help: str
    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


@dataclass(slots=True)
class ControllerMetrics:
    """Counts of one controller."""

    controller: str
    passes: int = 0
    errors: int = 0
    queue_length: int = 0
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))

    def observe(self, seconds: float, *, failed: bool) -> None:
        self.passes += 1
        self.errors += failed
        self.seconds += seconds
        self.buckets[bisect_left(BUCKETS, seconds)] += 1

    def samples(self) -> Iterator[Sample]:
        label = (("controller", self.controller),)
        yield from (
            _one("carmel_controller_passes_total", "counter", "Passes over a key.", label, self.passes),
            _one("carmel_controller_errors_total", "counter", "Passes that failed.", label, self.errors),
            _one("carmel_controller_queue_length", "gauge", "Keys that wait for a worker.", label, self.queue_length),
        )
        family, kind, text = "carmel_controller_pass_seconds", "histogram", "Duration of a pass."
        total = 0
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self.buckets, strict=True):
            total += count
            yield Sample(family, kind, text, f"{family}_bucket", (*label, ("le", bound)), total)
        yield Sample(family, kind, text, f"{family}_sum", label, self.seconds)
        yield Sample(family, kind, text, f"{family}_count", label, self.passes)


def _one(name: str, kind: str, text: str, labels: tuple[tuple[str, str], ...], value: float) -> Sample:
    return Sample(name, kind, text, name, labels, value)
