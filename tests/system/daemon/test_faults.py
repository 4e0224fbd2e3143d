"""A few random kills of the daemon under load. Many of them: ``tests/full/faults``."""

from __future__ import annotations

from tests.daemon import Daemon
from tests.faults import run_load


def test_five_kills_under_load(daemon: Daemon) -> None:
    assert run_load(daemon, seed=5, kills=5) > 0
