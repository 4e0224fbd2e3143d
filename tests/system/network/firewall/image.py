"""A guest with bridges, nftables and connection tracking on them, which the machine that runs the tests may lack."""

from __future__ import annotations

from dataclasses import replace

from carmel.storage.build import KernelBundle
from carmel.storage.build.context import Workshop
from carmel.storage.build.cpio import Entry
from carmel.storage.build.initramfs import unpack
from carmel.storage.build.libraries import library_entries
from carmel.storage.build.micro import micro_recipe
from carmel.storage.build.payload import DEBIAN_PYTHON
from carmel.storage.build.recipe import Recipe
from tests.caches import built_once

# Not /bin/ip: that is busybox's, which has no veth.
_PYTHON = f"usr/bin/python{DEBIAN_PYTHON}"
_PROGRAMS = {"bin/ip": "opt/ip", _PYTHON: _PYTHON}
_LIBRARY = f"usr/lib/python{DEBIAN_PYTHON}"
_MODULES = (
    "bridge", "veth", "nf_tables", "nft_ct", "nft_log", "nft_limit", "nft_meta_bridge", "nf_conntrack_bridge",
    "nf_log_syslog",
)  # fmt: skip


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
