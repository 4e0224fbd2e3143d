"""A lab for each test."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterator

import pytest

from tests.system.network.host.lab import Lab

_PROGRAMS = ("ip", "nft", "dnsmasq", "busybox", "nsenter")


@pytest.fixture
async def lab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    if os.geteuid() != 0 or not os.access("/dev/net/tun", os.W_OK):
        pytest.skip("needs root and /dev/net/tun")
    if missing := [name for name in _PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("net")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)  # dnsmasq gives its privileges up
    async with contextlib.AsyncExitStack() as stack:
        made = Lab(folder, stack)
        await made.prepare()
        yield made
        await made.plane.adopt([], [])
