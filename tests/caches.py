"""What tests keep between runs: in the user's own cache, so that packages are fetched once and not once a test.

Tests' fixtures give Carmel cache directories of their own; these are deliberately not below those.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from carmel.paths import Paths
from carmel.run import SystemRunner
from carmel.storage.build import BuildContext, KernelBundle, build_recipe
from carmel.storage.build.files import in_thread, locked
from carmel.storage.build.micro import COMMAND_LINE
from carmel.storage.build.recipe import Recipe

_WEEK_SECONDS = 7 * 24 * 3600


def _paths() -> Paths:
    return Paths.from_environment({key: value for key, value in os.environ.items() if key != "CARMEL_CACHE_DIR"})


def daemons_cache() -> Path:
    """The cache directory of the daemons that tests start."""
    return _paths().cache / "tests"


def kept() -> Path:
    """For what tests make without a daemon."""
    return _paths().build_cache / "tests"


async def built_once(recipe: Recipe) -> KernelBundle:
    """``recipe``'s guest, built once per user and version of its packages, shared by parallel sessions.

    Its files are shared: only read them.
    """
    folder = kept()
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    context = BuildContext(SystemRunner(), folder / "cache", work, lambda _percent, _message: None)
    async with locked(folder / "lock"):
        place = folder / f"{recipe.name}-{await recipe.cache_key(context)}"
        finished = KernelBundle(place / "kernel", place / "initrd", COMMAND_LINE)
        if finished.kernel.exists() and finished.initrd.exists():
            return finished
        # A leftover of a killed session. Other versions may be in use just now; a week later nobody uses them.
        for old in folder.glob(f"{recipe.name}-*"):
            if old == place or time.time() - old.stat().st_mtime > _WEEK_SECONDS:
                await in_thread(shutil.rmtree, old)
        place.mkdir()
        built = await build_recipe(recipe, context, place)
        assert isinstance(built, KernelBundle)
        return built
