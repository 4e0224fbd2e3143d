"""A store for tests: a real SQLite one in a folder of the test's own, with the namespace ``default``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from carmel.resources.core import NAMESPACE
from carmel.store.sqlite import SqliteStore


@asynccontextmanager
async def open_store(folder: Path, *namespaces: str, history: int = 4096) -> AsyncIterator[SqliteStore]:
    """An open store in ``folder``; ``namespaces`` (by default ``default`` alone) are made where they are missing."""
    store = await SqliteStore.open(folder / "store.sqlite", history=history)
    try:
        present = {one.name for one in (await store.list(NAMESPACE)).items}
        for name in namespaces or ("default",):
            if name not in present:
                await store.create(NAMESPACE, {"metadata": {"name": name}})
        yield store
    finally:
        await store.close()
