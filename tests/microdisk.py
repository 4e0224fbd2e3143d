"""The micro guest on a disk that UEFI boots, for tests: built once per user and version of its packages."""

from __future__ import annotations

from pathlib import Path

from carmel.run import SystemRunner
from carmel.storage.build import RECIPES, BuildContext, DiskImage, build_recipe
from tests.caches import kept


async def micro_disk(folder: Path) -> DiskImage:
    """A disk of the caller's own in ``folder``."""
    output, work = folder / "image", folder / "work"
    output.mkdir()
    work.mkdir()
    context = BuildContext(SystemRunner(), kept() / "cache", work, lambda _percent, _message: None)
    made = await build_recipe(RECIPES["micro-disk"], context, output)
    assert isinstance(made, DiskImage)
    return made
