"""The controllers' measurements in the API server's shape."""

from __future__ import annotations

from collections.abc import Iterable

from carmel.apiserver import metrics
from carmel.controllers.runtime import Sample


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
