"""A guest with bridges, nftables and connection tracking on them, which the machine that runs the tests may lack."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace

from carmel.paths import Paths
from carmel.run import SystemRunner
from carmel.storage.build import BuildContext, KernelBundle, build_recipe
from carmel.storage.build.context import Workshop
from carmel.storage.build.cpio import Entry
from carmel.storage.build.files import in_thread, locked
from carmel.storage.build.initramfs import unpack
from carmel.storage.build.libraries import library_entries
from carmel.storage.build.micro import COMMAND_LINE, micro_recipe
from carmel.storage.build.payload import DEBIAN_PYTHON
from carmel.storage.build.recipe import Recipe

# Not /bin/ip: that is busybox's, which has no veth.
_PYTHON = f"usr/bin/python{DEBIAN_PYTHON}"
_PROGRAMS = {"bin/ip": "opt/ip", _PYTHON: _PYTHON}
_LIBRARY = f"usr/lib/python{DEBIAN_PYTHON}"
_MODULES = (
    "bridge", "veth", "nf_tables", "nft_ct", "nft_log", "nft_limit", "nft_meta_bridge", "nf_conntrack_bridge",
    "nf_log_syslog",
)  # fmt: skip
_WEEK_SECONDS = 7 * 24 * 3600


def _recipe() -> Recipe:
    plain = micro_recipe("firewall-tests", modules=_MODULES)

    async def make(workshop: Workshop) -> KernelBundle:
        root = workshop.directory / "programs"
        await unpack(workshop.context, workshop.archives, root)
        programs = {into: (root / name).read_bytes() for name, into in _PROGRAMS.items()}
        files = [Entry.file(into, data, executable=True) for into, data in programs.items()]
        files += [
            Entry.file(str(path.relative_to(root)), path.read_bytes())
            for path in sorted((root / _LIBRARY).rglob("*.py"))
        ]
        there = {one.path for one in library_entries(root, [(root / "usr/sbin/qemu-ga").read_bytes()])}
        libraries = [one for one in library_entries(root, list(programs.values())) if one.path not in there]
        made = await micro_recipe("firewall-tests", modules=_MODULES, files=[*files, *libraries]).make(workshop)
        assert isinstance(made, KernelBundle)
        return made

    packages = (*plain.packages, "iproute2", f"python{DEBIAN_PYTHON}-minimal")
    return replace(plain, version=3, packages=packages, keep=None, make=make)


async def firewall_bundle() -> KernelBundle:
    return await built_once(_recipe())


async def built_once(recipe: Recipe) -> KernelBundle:
    """The guest, built once per user and version of its packages. Its files are shared: only read them."""
    environment = {key: value for key, value in os.environ.items() if key != "CARMEL_CACHE_DIR"}
    folder = Paths.from_environment(environment).build_cache / "tests"
    work = folder / "work"
    work.mkdir(parents=True, exist_ok=True)
    context = BuildContext(SystemRunner(), folder / "cache", work, lambda _percent, _message: None)
    async with locked(folder / "lock"):
        place = folder / f"{recipe.name}-{await recipe.cache_key(context)}"
        finished = KernelBundle(place / "kernel", place / "initrd", COMMAND_LINE)
        if finished.kernel.exists() and finished.initrd.exists():
            return finished
        for old in folder.glob(f"{recipe.name}-*"):
            if old == place or time.time() - old.stat().st_mtime > _WEEK_SECONDS:
                await in_thread(shutil.rmtree, old)
        place.mkdir()
        built = await build_recipe(recipe, context, place)
        assert isinstance(built, KernelBundle)
        return built
