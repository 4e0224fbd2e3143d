"""The host image, built once (or taken from the tests' cache), and one server that boots it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from carmel.run import SystemRunner
from carmel.storage.build import BuildContext, DiskImage, build
from tests.caches import daemons_cache
from tests.full.lab.machine import Machine


@pytest.fixture(scope="session")
def host_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What dpkg made of the packages is kept between runs; Carmel itself is always that of this checkout."""
    folder = tmp_path_factory.mktemp("image")
    output = folder / "output"
    output.mkdir()
    context = BuildContext(SystemRunner(), daemons_cache() / "build", folder, lambda _percent, _message: None)
    made = asyncio.run(build("host", context, output))
    assert isinstance(made, DiskImage)
    return made.path


@pytest.fixture(scope="session")
def machine(host_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A server that has been set up by its file and answers. Every module leaves it running."""
    made = Machine(tmp_path_factory.mktemp("server"), host_image, token=secrets.token_urlsafe(32))
    made.install(
        f"""# The lab's server.
hostName: lab-full
ssh: {{authorizedKeys: ["{made.make_key()} test"]}}
api: {{listen: 0.0.0.0, port: 17443, names: [127.0.0.1], adminToken: {made.token}}}
"""
    )
    made.start()
    try:
        made.await_ssh()
        made.await_api()
        yield made
    finally:
        made.cut()
