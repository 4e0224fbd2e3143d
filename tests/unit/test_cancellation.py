from __future__ import annotations

import asyncio

import pytest

from carmel.cancellation import end_tasks


async def test_all_have_ended_when_it_returns() -> None:
    ended = []

    async def work(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(number)

    tasks = [asyncio.create_task(work(number)) for number in range(2)]
    await asyncio.sleep(0)
    await end_tasks(tasks[0], None, tasks[1])
    assert sorted(ended) == [0, 1]


async def test_a_failure_is_not_lost() -> None:
    async def fail() -> None:
        raise ValueError("broken")

    task = asyncio.create_task(fail())
    await asyncio.wait([task])
    with pytest.raises(ValueError, match="broken"):
        await end_tasks(task)
