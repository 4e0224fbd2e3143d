"""The micro guest for tests that boot."""

from __future__ import annotations

from carmel.storage.build import RECIPES, KernelBundle
from tests.caches import built_once


async def micro_bundle() -> KernelBundle:
    """The micro guest. Its files are shared: only read them."""
    return await built_once(RECIPES["micro"])
