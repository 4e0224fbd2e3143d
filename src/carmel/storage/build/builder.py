"""Builds a recipe, or hands out what was built before."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

from carmel.errors import Conflict, NotFound
from carmel.storage.build.cache import ResultCache
from carmel.storage.build.context import BuildContext, DiskImage, KernelBundle, Package, Workshop
from carmel.storage.build.files import explained, locked
from carmel.storage.build.micro import micro_recipe
from carmel.storage.build.recipe import Recipe

RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in (micro_recipe(),)})


async def build(recipe: str, context: BuildContext, output: Path) -> KernelBundle | DiskImage:
    """Build ``recipe`` by name into ``output``, an empty directory. See ``build_recipe``."""
    found = RECIPES.get(recipe)
    if found is None:
        raise NotFound(
            f"there is no recipe {recipe[:64]!r}",
            code="RecipeNotFound",
            hint=f"there are: {', '.join(sorted(RECIPES))}",
        )
    return await build_recipe(found, context, output)


async def build_recipe(recipe: Recipe, context: BuildContext, output: Path) -> KernelBundle | DiskImage:
    """Make ``recipe``'s image, or take it from the cache, and move its files into ``output``.

    All or nothing: when this raises or is cancelled, ``output`` is as empty as before and ``context.work`` holds
    nothing of this build. Two builds of one image at a time (also in two processes) make it once.

    Raises ``Refused`` (``ProgramMissing``, ``NoPackageMirror``, ``KeyringMissing``), ``Unavailable``
    (``MirrorUnavailable``), ``InsufficientStorage``, ``Conflict`` if ``output`` is not an empty directory.
    """
    with explained():
        _check_output(output)
        cache = ResultCache(context.cache)
        packages = await recipe.resolve(context)
        name = f"{recipe.name}-{await asyncio.to_thread(recipe.key_of, packages)}"
        async with locked(cache.lock_path(name)), _scratch(context.work) as work:
            if cache.find(name) is None:
                result = await _make(recipe, replace(context, work=work), packages)
                await asyncio.to_thread(cache.put, name, result)
            delivered = await asyncio.to_thread(cache.deliver, name, work, output)
        context.progress(100, "done")
        return delivered


async def _make(recipe: Recipe, context: BuildContext, packages: tuple[Package, ...]) -> KernelBundle | DiskImage:
    archives, directory = context.work / "archives", context.work / "image"
    archives.mkdir()
    directory.mkdir()
    message = f"downloading {len(packages)} packages"
    context.progress(0, message)
    apt = recipe.apt(context)
    await apt.download(
        packages, archives, lambda percent: context.progress(percent * recipe.download_share // 100, message)
    )
    return await recipe.make(Workshop(context, packages, archives, directory))


def _check_output(output: Path) -> None:
    if not output.is_dir() or any(output.iterdir()):
        raise Conflict(
            "an image can be built only into an empty directory",
            code="OutputNotEmpty",
            hint="give an existing directory with nothing in it",
        )


@contextlib.asynccontextmanager
async def _scratch(work: Path) -> AsyncIterator[Path]:
    """A directory for one build, gone when the build ends, however it ends."""
    directory = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="build-", dir=work))
    try:
        yield directory
    finally:
        # A second cancellation must not stop the cleaning.
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True))
