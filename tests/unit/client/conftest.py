from __future__ import annotations

from collections.abc import Iterator

import pytest

from carmel.client.api import Client
from carmel.client.endpoint import Context, UnixEndpoint
from tests.unit.client.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with World(tmp_path_factory.mktemp("world")) as running:
        yield running


@pytest.fixture
def client(world: World) -> Iterator[Client]:
    with Client(Context("local", UnixEndpoint(world.socket))) as opened:
        yield opened
