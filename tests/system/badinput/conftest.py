"""One daemon a module, and its two clients as a user has them: ``carmel`` and ``kubectl``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon, running_daemon
from tests.system.badinput.programs import Carmel, Kubectl


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """It must be the same process at the end: whatever it was sent, it went on, and never had to say ``Traceback``."""
    with running_daemon() as running:
        before = running.pid
        yield running
        assert running.pid == before
        assert running.process is not None
        assert running.process.poll() is None
        assert "Traceback" not in running.log.read_text()


@pytest.fixture
def carmel(daemon: Daemon, tmp_path: Path) -> Iterator[Carmel]:
    yield Carmel(daemon, tmp_path)
    daemon.delete_all_vms()


@pytest.fixture(scope="module")
def kubectl(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Kubectl:
    home = tmp_path_factory.mktemp("kubectl")
    config = home / "config"
    config.write_text(Carmel(daemon, home)("kubeconfig").stdout)
    return Kubectl(daemon, config)
