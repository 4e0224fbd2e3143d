"""The micro guest for tests that boot: built once per user and version of its packages, shared by parallel sessions.

The tests' fixtures give Carmel cache directories of their own; this one is deliberately the user's, so that the
kernel is fetched once and not once a test.
"""

from __future__ import annotations

import os
import shutil
import time

from carmel.paths import Paths
from carmel.run import SystemRunner
from carmel.storage.build import RECIPES, BuildContext, KernelBundle, build_recipe
from carmel.storage.build.files import locked
from carmel.storage.build.micro import COMMAND_LINE

_WEEK_SECONDS = 7 * 24 * 3600


async def micro_bundle() -> KernelBundle:
    """The micro guest. Its files are shared: only read them."""
    environment = {key: value for key, value in os.environ.items() if key != "CARMEL_CACHE_DIR"}
    folder = Paths.from_environment(environment).build_cache / "tests"
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    recipe = RECIPES["micro"]
    context = BuildContext(SystemRunner(), folder / "cache", work, lambda _percent, _message: None)
    async with locked(folder / "lock"):
        place = folder / f"micro-{await recipe.cache_key(context)}"
        finished = KernelBundle(place / "kernel", place / "initrd", COMMAND_LINE)
        if finished.kernel.exists() and finished.initrd.exists():
            return finished
        # A leftover of a killed session. Other versions may be in use just now; a week later nobody uses them.
        for old in folder.glob("micro-*"):
            if old == place or time.time() - old.stat().st_mtime > _WEEK_SECONDS:
                shutil.rmtree(old)
        place.mkdir()
        built = await build_recipe(recipe, context, place)
        assert isinstance(built, KernelBundle)
        return built
