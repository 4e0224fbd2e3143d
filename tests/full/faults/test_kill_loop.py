"""Fifty kills of the daemon at random points of a create, start, stop, delete load.

``CARMEL_SOAK_SEEDS`` (``make soak SEEDS=n``) is how many loads, each from another seed.
"""

from __future__ import annotations

import os
import random

import pytest

from tests.daemon import running_daemon
from tests.faults import run_load

KILLS = 50
SEEDS = int(os.environ.get("CARMEL_SOAK_SEEDS") or 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_fifty_kills_under_load(seed: int) -> None:
    # The first seed is always the same; a soak's further ones are new each time, and told by the assertion's name.
    chosen = 2026 if seed == 0 else random.SystemRandom().randrange(2**32)
    with running_daemon() as daemon:
        daemon.make_micro_image()
        assert run_load(daemon, chosen, KILLS) > KILLS, f"seed {chosen}"
