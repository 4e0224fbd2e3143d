"""The ``micro-disk`` image: what ``micro`` is, on a disk that UEFI boots. For machines that nobody gives a kernel.

One partition, an EFI system partition with systemd-boot, the kernel and the initramfs; all that runs is in memory, so a
disk that goes away for a while is missed by nobody but who reads or writes it. Waiting for it takes patience: the
driver's own is 30 seconds, in which a SmartNIC that serves the disk does not start anew.
"""

from __future__ import annotations

from carmel.storage.build.context import DiskImage, KernelBundle, Workshop
from carmel.storage.build.disk import (
    BOOT_PROGRAMS,
    BootFiles,
    Disk,
    Layout,
    compress,
    partition,
    write_boot_partition,
)
from carmel.storage.build.initramfs import only
from carmel.storage.build.recipe import Recipe
from carmel.units import MIB

_LAYOUT = Layout(disk=46 * MIB, esp=44 * MIB)
_LOADER_PACKAGE = "systemd-boot-efi"
_IO_TIMEOUT = "nvme_core.io_timeout=900"
"""Seconds. The driver takes a drive that does not answer for longer for broken."""


def micro_disk_recipe(micro: Recipe) -> Recipe:
    """The recipe; ``micro`` makes what is put on the disk."""

    async def make(workshop: Workshop) -> DiskImage:
        return await _make(workshop, micro)

    return Recipe(
        name="micro-disk",
        summary="micro on a disk that UEFI boots: for machines without a hypervisor",
        kind="Disk",
        version=1,
        packages=(*micro.packages, _LOADER_PACKAGE),
        keep=rf"{micro.keep}|{_LOADER_PACKAGE}",
        programs=BOOT_PROGRAMS,
        inputs=lambda: micro.inputs() + f"{_LAYOUT.table}{_IO_TIMEOUT}".encode(),
        make=make,
    )


async def _make(workshop: Workshop, micro: Recipe) -> DiskImage:
    context, directory = workshop.context, workshop.directory
    bundle = await micro.make(workshop)
    assert isinstance(bundle, KernelBundle)
    loader = only(directory.glob("root/usr/lib/systemd/boot/efi/systemd-bootaa64.efi"), "boot loader")
    options = f"{bundle.command_line} {_IO_TIMEOUT}"
    disk = Disk(directory / "disk.raw", _LAYOUT, "micro", "1", options)
    context.progress(90, "writing the boot partition")
    await partition(context, disk)
    await write_boot_partition(workshop, disk, BootFiles("Carmel micro", bundle.kernel, bundle.initrd, loader))
    image = directory / "disk.qcow2"
    await compress(context, disk.raw, image)
    return DiskImage(image, "qcow2", _LAYOUT.disk)
