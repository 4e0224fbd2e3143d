"""The application on a real store, one for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from carmel.apiserver.app import App
from carmel.store.protocol import Store
from tests.unit.apiserver.harness import FakeStreams, running_app


class Served(NamedTuple):
    app: App
    store: Store
    streams: FakeStreams


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with running_app(tmp_path) as (app, store, streams):
        yield Served(app, store, streams)
