"""One outer daemon and one lab machine a module; each test finds the machine without VMs, unless it says otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon, running_daemon


@pytest.fixture(scope="package")
def outer() -> Iterator[Daemon]:
    with running_daemon() as daemon:
        yield daemon
        daemon.delete_all_vms()
        daemon.wait_no_volumes()
        assert daemon.leftovers() == []


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")
