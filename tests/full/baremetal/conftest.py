"""A SmartNIC and a bare host, for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.full.baremetal.metal import GUEST_READY, OUTSIDE, Metal, bare_metal
from tests.system.lab.conftest import outer

__all__ = ["outer"]


@pytest.fixture(scope="module")
def metal(outer: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Metal]:
    home: Path = tmp_path_factory.mktemp("home")
    with bare_metal(outer, home) as here:
        here.wait_for_host(GUEST_READY)
        yield here


@pytest.fixture
def outside(metal: Metal) -> str:
    """The address of one whom the host reaches through the NIC alone."""
    metal.be_outside()
    return OUTSIDE
