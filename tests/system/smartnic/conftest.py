"""A SmartNIC for each test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.system.smartnic.nic import Nic, running_nic

_PROGRAMS = ("ip", "nft", "dnsmasq", "busybox", "nsenter")


def require_programs() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if missing := [name for name in _PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}")


@pytest.fixture
def nic() -> Iterator[Nic]:
    require_programs()
    with running_nic() as running:
        yield running
