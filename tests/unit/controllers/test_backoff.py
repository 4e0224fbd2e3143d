from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from carmel.controllers.runtime.backoff import Backoff, Failures


def test_delays_double_up_to_the_longest() -> None:
    plain = Backoff(initial=1, maximum=10, jitter=0)
    assert [plain.delay(count, random.Random(0)) for count in (1, 2, 3, 4, 5, 1_000_000)] == [1, 2, 4, 8, 10, 10]


@given(st.integers(min_value=1, max_value=5000), st.integers())
def test_jitter_stays_within_its_bounds(failures: int, seed: int) -> None:
    backoff = Backoff(initial=0.5, maximum=300, jitter=0.2)
    plain = Backoff(initial=0.5, maximum=300, jitter=0).delay(failures, random.Random(0))
    assert 0.8 * plain <= backoff.delay(failures, random.Random(seed)) <= 1.2 * plain


def test_a_success_begins_anew() -> None:
    failures: Failures[str] = Failures(Backoff(initial=1, jitter=0), random.Random(0))
    assert [failures.add("a"), failures.add("a"), failures.add("b")] == [1, 2, 1]
    failures.forget("a")
    assert failures.count("a") == 0
    assert failures.add("a") == 1
