"""One site for all of these tests; each leaves it as it found it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.system.network.hosted.site import HERE, Site, open_site

_PROGRAMS = ("ip", "nft", "dnsmasq", "busybox", "nsenter")


@pytest.fixture(scope="package")
def shared_site() -> Iterator[Site]:
    if os.geteuid() != 0 or not os.access("/dev/net/tun", os.W_OK):
        pytest.skip("needs root and /dev/net/tun")
    if missing := [name for name in _PROGRAMS if shutil.which(name) is None]:
        pytest.skip(f"needs {', '.join(missing)}")
    with open_site() as site:
        yield site


@pytest.fixture
def site(shared_site: Site) -> Iterator[Site]:
    if shared_site.daemon.process is None:
        shared_site.daemon.start()
    yield shared_site
    shared_site.clean()
    shared_site.host.ip(f"addr replace {HERE}/24 dev up0")
    assert shared_site.host.links() == {"lo", "up0"}
    assert not [table for table in shared_site.host.tables() if "carmel-" in table and "firewall" not in table]
