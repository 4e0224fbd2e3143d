"""The end of tasks that run until they are told to stop."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any


async def end_tasks(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel ``tasks`` and wait until all have ended; ``None`` was never begun. Raises what one failed with."""
    begun = [task for task in tasks if task is not None]
    for task in begun:
        task.cancel()
    for task in begun:
        with contextlib.suppress(asyncio.CancelledError):
            await task
