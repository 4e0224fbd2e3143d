"""One small board for all: each module begins without VMs and networks of its own, and leaves none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.system.lab.conftest import outer
from tests.system.lab.machine import LabMachine, lab_machine

__all__ = ["outer"]


@pytest.fixture(scope="package")
def lab(outer: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabMachine]:
    home: Path = tmp_path_factory.mktemp("home")
    with lab_machine(outer, home, "raspberry-pi-4") as running:
        running.make_micro_image()
        yield running
        # None of its controllers met with what it did not expect.
        assert running.shell("grep -A 20 'a pass failed' /var/log/carmeld.log").strip() == ""
