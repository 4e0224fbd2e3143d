"""Images built from Debian's packages alone: ``build("micro", context, output)``.

A recipe names packages; a private apt resolves and downloads them, verified by Debian's keys; the recipe makes a
kernel with an initramfs, or a disk, out of them. What is finished is cached by the packages' versions.

Recipes and what works on them are loaded when the first of them is asked for: a host builds now and then, a SmartNIC
never.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from carmel.storage.build.context import BuildContext, DiskImage, KernelBundle, Package, ProgressSink

if TYPE_CHECKING:
    from carmel.storage.build.builder import RECIPES, build, build_recipe
    from carmel.storage.build.micro import micro_recipe
    from carmel.storage.build.recipe import Recipe

__all__ = [
    "RECIPES",
    "BuildContext",
    "DiskImage",
    "KernelBundle",
    "Package",
    "ProgressSink",
    "Recipe",
    "build",
    "build_recipe",
    "micro_recipe",
]

_LATER = {
    "RECIPES": "builder",
    "build": "builder",
    "build_recipe": "builder",
    "micro_recipe": "micro",
    "Recipe": "recipe",
}


def __getattr__(name: str) -> Any:
    """PEP 562: called once for each of them."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = found
    return found
