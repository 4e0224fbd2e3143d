"""Exponential back-off with jitter: how long to wait before the next try of something that failed."""

from __future__ import annotations

import random
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays in seconds: ``initial``, times ``factor`` at each further failure, up to ``maximum``.

    ``jitter`` 0.2 spreads each delay over 80 to 120 per cent, so that what failed together is not tried together.
    """

    initial: float = 0.5
    factor: float = 2.0
    maximum: float = 300.0
    jitter: float = 0.2

    def delay(self, failures: int, rng: random.Random) -> float:
        """The delay after ``failures`` failures in a row, the first being 1."""
        # The exponent is bounded: a float overflows after a thousand doublings.
        plain = min(self.maximum, self.initial * self.factor ** min(max(failures, 1) - 1, 64))
        return plain * (1 + self.jitter * (2 * rng.random() - 1))


@dataclass(slots=True)
class Failures(Generic[K]):
    """Counts failures in a row, a key at a time."""

    backoff: Backoff
    rng: random.Random
    _counts: dict[K, int] = field(default_factory=dict)

    def add(self, key: K) -> float:
        """One more: answers how many seconds to wait."""
        self._counts[key] = self._counts.get(key, 0) + 1
        return self.backoff.delay(self._counts[key], self.rng)

    def count(self, key: K) -> int:
        return self._counts.get(key, 0)

    def forget(self, key: K) -> None:
        self._counts.pop(key, None)
