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
from carmel.storage.build.context import BuildContext, DiskImage, KernelBundle, Package, ProgressSink, Workshop
from carmel.storage.build.debian import debian_recipe
from carmel.storage.build.files import explained, in_thread, locked
from carmel.storage.build.host import host_recipe
from carmel.storage.build.lab_host import lab_host_recipe
from carmel.storage.build.micro import micro_recipe
from carmel.storage.build.micro_disk import micro_disk_recipe
from carmel.storage.build.recipe import Recipe

RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            micro_recipe(),
            micro_disk_recipe(micro_recipe()),
            debian_recipe(),
            host_recipe(micro_recipe()),
            lab_host_recipe(micro_recipe()),
        )
    }
)


async def build(recipe: str, context: BuildContext, output: Path) -> KernelBundle | DiskImage:
    """Build ``recipe`` by name into ``output``, an empty directory, or take what came with this host.

    Who names a mirror wants it built from there. See ``build_recipe``.
    """
    found = RECIPES.get(recipe)
    if found is None:
        raise NotFound(
            f"there is no recipe {recipe[:64]!r}",
            code="RecipeNotFound",
            hint=f"there are: {', '.join(sorted(RECIPES))}",
        )
    if context.ready_made is not None and context.mirror is None:
        came_with_us = ResultCache(context.ready_made)
        if await in_thread(came_with_us.find, recipe) is not None:
            return await _deliver(came_with_us, recipe, context, output)
    return await build_recipe(found, context, output)


async def build_recipe(recipe: Recipe, context: BuildContext, output: Path) -> KernelBundle | DiskImage:
    """Make ``recipe``'s image, or take it from the cache, and move its files into ``output``.

    All or nothing: when this raises or is cancelled, ``output`` is as empty as before and ``context.work`` holds
    nothing of this build. Two builds of one image at a time (also in two processes) make it once.

    Raises ``Refused`` (``ProgramMissing``, ``NoPackageMirror``, ``KeyringMissing``), ``Unavailable``
    (``MirrorUnavailable``), ``InsufficientStorage``, ``Conflict`` if ``output`` is not an empty directory.
    """
    context = replace(context, progress=_without_repeats(context.progress))
    with explained():
        _check_output(output)
        cache = ResultCache(context.cache)
        packages = await recipe.resolve(context)
        name = f"{recipe.name}-{await in_thread(recipe.key_of, packages)}"
        async with locked(cache.lock_path(name)), _scratch(context.work) as work:
            if cache.find(name) is None:
                result = await _make(recipe, replace(context, work=work), packages)
                await in_thread(cache.put, name, result)
                await in_thread(cache.prune, recipe.name)
            delivered = await _deliver(cache, name, replace(context, work=work), output)
        context.progress(100, "done")
        return delivered


async def _deliver(cache: ResultCache, name: str, context: BuildContext, output: Path) -> KernelBundle | DiskImage:
    with explained():
        _check_output(output)
        try:
            return await in_thread(cache.deliver, name, context.work, output)
        except asyncio.CancelledError:
            await in_thread(_empty, output)
            raise


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


def _without_repeats(progress: ProgressSink) -> ProgressSink:
    last: tuple[int | None, str] | None = None

    def told(percent: int | None, message: str) -> None:
        nonlocal last
        if (percent, message) != last:
            last = (percent, message)
            progress(percent, message)

    return told


def _check_output(output: Path) -> None:
    if not output.is_dir() or any(output.iterdir()):
        raise Conflict(
            "an image can be built only into an empty directory",
            code="OutputNotEmpty",
            hint="give an existing directory with nothing in it",
        )


def _empty(output: Path) -> None:
    for path in output.iterdir():
        path.unlink()


@contextlib.asynccontextmanager
async def _scratch(work: Path) -> AsyncIterator[Path]:
    """A directory for one build, gone when the build ends, however it ends."""
    directory = Path(await in_thread(tempfile.mkdtemp, prefix="build-", dir=work))
    try:
        yield directory
    finally:
        # A second cancellation must not stop the cleaning.
        await in_thread(shutil.rmtree, directory, ignore_errors=True)
