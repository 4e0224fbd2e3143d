"""The fake NVMe functions keep the contract of the real ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from carmel.smartnic.nvme.functions import NvmeFunctions, Show
from tests.fakes.nvme import FakeNvme
from tests.fakes.nvme_contract import CONTRACT, Check, Subject


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
async def test_the_contract(check: Check) -> None:
    hardware: dict[str, Show] = {}

    @asynccontextmanager
    async def running(known: Collection[str]) -> AsyncIterator[NvmeFunctions]:
        functions = FakeNvme(hardware)
        await functions.adopt(known)
        yield functions

    await check(Subject(running, lambda name: Path("/dev") / name))
