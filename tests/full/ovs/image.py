"""A guest with Open vSwitch and the kernel's own datapath for it."""

from __future__ import annotations

from dataclasses import replace

from carmel.storage.build import KernelBundle
from carmel.storage.build.context import Workshop
from carmel.storage.build.cpio import Entry
from carmel.storage.build.initramfs import unpack
from carmel.storage.build.libraries import library_entries
from carmel.storage.build.micro import micro_recipe
from carmel.storage.build.recipe import Recipe
from tests.caches import built_once

_PROGRAMS = {
    "bin/ip": "opt/ip",
    "usr/lib/openvswitch-switch/ovs-vswitchd": "usr/sbin/ovs-vswitchd",
    "usr/sbin/ovsdb-server": "usr/sbin/ovsdb-server",
    **{f"usr/bin/{name}": f"usr/bin/{name}" for name in ("ovsdb-tool", "ovs-vsctl", "ovs-ofctl", "ovs-appctl")},
}
SCHEMA = "usr/share/openvswitch/vswitch.ovsschema"
_MODULES = ("openvswitch", "veth")
_NOT_NEEDED = r"(?!python3|media-types|perl).*"
"""Programs of Open vSwitch's that none of these tests use are in Python."""


def _recipe() -> Recipe:
    plain = micro_recipe("ovs-tests", modules=_MODULES)

    async def make(workshop: Workshop) -> KernelBundle:
        root = workshop.directory / "programs"
        await unpack(workshop.context, workshop.archives, root)
        programs = {into: (root / name).read_bytes() for name, into in _PROGRAMS.items()}
        files = [Entry.file(into, data, executable=True) for into, data in programs.items()]
        files.append(Entry.file(SCHEMA, (root / SCHEMA).read_bytes()))
        there = {one.path for one in library_entries(root, [(root / "usr/sbin/qemu-ga").read_bytes()])}
        libraries = [one for one in library_entries(root, list(programs.values())) if one.path not in there]
        made = await micro_recipe("ovs-tests", modules=_MODULES, files=[*files, *libraries]).make(workshop)
        assert isinstance(made, KernelBundle)
        return made

    packages = (*plain.packages, "iproute2", "openvswitch-switch")
    return replace(plain, packages=packages, keep=_NOT_NEEDED, make=make)


async def ovs_bundle() -> KernelBundle:
    return await built_once(_recipe())
