"""One daemon a module, with the micro image; VMs are gone after each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.daemon import Daemon, running_daemon


@pytest.fixture(scope="module")
def shared_daemon() -> Iterator[Daemon]:
    with running_daemon() as daemon:
        daemon.make_micro_image()
        yield daemon


@pytest.fixture
def daemon(shared_daemon: Daemon) -> Iterator[Daemon]:
    """Running, without VMs; and so again afterwards, with nothing of them left."""
    if shared_daemon.process is None:
        shared_daemon.start()
    yield shared_daemon
    if shared_daemon.process is None:
        shared_daemon.start()
    shared_daemon.delete_all_vms()
    shared_daemon.wait_no_volumes()
    assert shared_daemon.leftovers() == []
