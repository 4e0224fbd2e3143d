"""A lab of two machines, a server and its SmartNIC, for one module after the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.full.smartnic.pair import Pair
from tests.full.smartnic.sharing import Labs, contents, restore


@pytest.fixture(scope="session")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    labs = Labs(lambda: tmp_path_factory.mktemp("home"))
    try:
        yield labs
    finally:
        labs.close()


@pytest.fixture(scope="module")
def pair(labs: Labs, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """As it came up, whatever other modules did."""
    failed = request.session.testsfailed
    pair = labs.take()
    before = contents(pair)
    yield pair
    if request.session.testsfailed > failed:
        labs.close()
        return
    try:
        restore(pair, before)
    except BaseException:
        labs.close()
        raise
