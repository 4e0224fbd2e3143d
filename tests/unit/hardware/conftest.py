"""Machines to read, each unpacked once."""

from __future__ import annotations

from pathlib import Path

import pytest

from carmel.hardware.model import Hardware
from carmel.hardware.reader import read_hardware
from tests.unit.hardware.recorded import SERVER, unpack


@pytest.fixture(scope="session")
def recorded_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(SERVER, tmp_path_factory.mktemp("machine"))


@pytest.fixture(scope="session")
def recorded(recorded_root: Path) -> Hardware:
    return read_hardware(recorded_root)
