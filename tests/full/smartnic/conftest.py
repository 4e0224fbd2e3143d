"""A lab of two machines, a server and its SmartNIC, for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon, running_daemon
from tests.full.smartnic.pair import Pair, lab_pair


@pytest.fixture(scope="module")
def outer() -> Iterator[Daemon]:
    with running_daemon() as daemon:
        yield daemon
        daemon.delete_all_vms()
        daemon.wait_no_volumes()
        assert daemon.leftovers() == []


@pytest.fixture(scope="module")
def pair(outer: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    home: Path = tmp_path_factory.mktemp("home")
    with lab_pair(outer, home) as machines:
        yield machines
