"""The initramfs of the ``host`` image: finds the root file system on whatever bus the machine has its disks.

It holds the drivers of storage and of what leads to it, by directory of the kernel's tree, and their aliases
(depmod(8)'s ``modules.alias`` and ``modules.dep``, read by busybox's modprobe); ``host_guest/initramfs-init`` loads
those whose devices are there.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from carmel.storage.build.context import BuildContext
from carmel.storage.build.cpio import Entry, archive
from carmel.storage.build.files import in_thread
from carmel.storage.build.initramfs import base_entries, modprobe_entries
from carmel.storage.build.modules import Module, ModuleTree

# Below drivers/: buses and controllers of disks, and what a device tree's boards need to power them up.
_DRIVERS = (
    *("ata", "message/fusion", "mmc/core", "mmc/host", "nvme/host", "usb/host", "usb/storage", "virtio"),
    *("pci/controller", "phy/broadcom", "phy/tegra", "reset", "regulator", "clk/bcm", "mailbox"),
    *("scsi/aacraid", "scsi/hisi_sas", "scsi/megaraid", "scsi/mpi3mr", "scsi/mpt3sas", "scsi/smartpqi"),
)
_MODULES = ("virtio_blk", "virtio_scsi", "sd_mod", "mmc_block", "vmd")
# Loaded whether or not a device asks for them: ext4's checksums have no alias that its loading would ask for.
_ALWAYS = ("crc32c_generic", "ext4", "sd_mod")


async def write_initramfs(context: BuildContext, boot: Path, version: str, initrd: Path) -> None:
    """Write it to ``initrd`` from the kernel and busybox that are unpacked in ``boot``."""
    tree = ModuleTree(boot / f"lib/modules/{version}", context.runner)
    wanted = (*_MODULES, *tree.below(*(f"drivers/{name}" for name in _DRIVERS)))
    modules = await tree.load_order((), optional=(*_ALWAYS, *wanted))
    await in_thread(_write, initrd, boot, version, modules)


def _write(initrd: Path, boot: Path, version: str, modules: Sequence[Module]) -> None:
    guest = resources.files("carmel.storage.build") / "host_guest"
    entries = [
        *base_entries(boot),
        *modprobe_entries(version, modules),
        Entry.file("etc/modules", "".join(f"{name}\n" for name in _ALWAYS).encode()),
        Entry.file("init", (guest / "initramfs-init").read_bytes(), executable=True),
        Entry.directory("newroot"),
    ]
    initrd.write_bytes(gzip.compress(archive(entries), 6, mtime=0))
