"""``carmel`` as a user calls it, against a small host that is real up to its hypervisor."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from carmel.cli.main import main
from tests.unit.client.world import World
from tests.unit.hardware.recorded import SERVER, unpack


@dataclass(frozen=True, slots=True)
class Outcome:
    status: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


Carmel = Callable[..., Outcome]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world")) as running:
        yield running


@pytest.fixture(scope="session")
def recorded_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recorded dual-socket server, unpacked once."""
    return unpack(SERVER, tmp_path_factory.mktemp("machine"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's home of the test's own, and no daemon anywhere."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CARMEL_RUN_DIR", str(tmp_path / "run"))
    for name in ("KUBECONFIG", "CARMEL_CONTEXT", "CARMEL_CONFIG", "CARMEL_DEBUG", "XDG_CONFIG_HOME", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def lone(home: Path, capfd: pytest.CaptureFixture[str]) -> Carmel:
    """``carmel`` without a daemon."""

    def run(*words: str) -> Outcome:
        capfd.readouterr()
        status = main(words)
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run


@pytest.fixture
def carmel(world: World, lone: Carmel, monkeypatch: pytest.MonkeyPatch) -> Carmel:
    """``carmel`` with the small host."""
    monkeypatch.setenv("CARMEL_RUN_DIR", str(world.folder))
    return lone
