"""Images built from Debian's packages alone: ``build("micro", context, output)``.

A recipe names packages; a private apt resolves and downloads them, verified by Debian's keys; the recipe makes a
kernel with an initramfs, or a disk, out of them. What is finished is cached by the packages' versions.
"""

from carmel.storage.build.builder import RECIPES, build, build_recipe
from carmel.storage.build.context import BuildContext, DiskImage, KernelBundle, Package, ProgressSink
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
