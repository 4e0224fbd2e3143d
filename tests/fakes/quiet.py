"""When nothing moves any more: not after some time, but when all has been worked off."""

from __future__ import annotations

import asyncio

from carmel.controllers.runtime import Runtime
from carmel.store.sqlite import SqliteStore
from tests.fakes.clock import settle


async def quiet(runtime: Runtime, store: SqliteStore) -> None:
    """Return when the store has nothing to write and no controller a key that it works on or that is due.

    Keys whose time has not come yet stay where they are: time does not pass.
    """
    async with asyncio.timeout(20):
        calm = 0
        while calm < 3:
            await settle()
            calm = 0 if _busy(runtime, store) else calm + 1


def _busy(runtime: Runtime, store: SqliteStore) -> bool:
    queues = [controller._queue for controller in runtime._controllers]
    return store._drain is not None or any(queue._wanted or queue._working for queue in queues)
