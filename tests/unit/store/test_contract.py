"""The SQLite store under the suite that every store passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from carmel.resources.core import SECRET
from carmel.store.sqlite import SqliteStore
from tests.contract.apply import ApplyContract
from tests.contract.objects import secret
from tests.contract.reads import Compact, ReadContract
from tests.contract.writes import WriteContract
from tests.stores import open_store

HISTORY = 300


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with open_store(tmp_path, history=HISTORY) as opened:
        yield opened


@pytest.fixture
def compact(store: SqliteStore) -> Compact:
    async def run() -> None:
        for index in range(HISTORY // 2 + 1):
            await store.create(SECRET, secret(f"filler{index}"))
            await store.delete(SECRET, "default", f"filler{index}")

    return run


class TestReads(ReadContract):
    """Lists and watches."""


class TestWrites(WriteContract):
    """Create, replace, patch, delete."""


class TestApply(ApplyContract):
    """Server-side apply."""
