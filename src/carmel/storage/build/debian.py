"""The ``debian`` image: a UEFI-bootable Debian with systemd, cloud-init, the guest agent and sshd.

Packages are resolved and fetched by the private apt; ``disk`` makes the disk of them; the raw disk becomes a
compressed qcow2.

What makes it quick without KVM: dpkg unpacks as a native program and only maintainer scripts are emulated; Python's
byte code, the certificate bundle and the initramfs are made natively; nothing waits for fsync, as a half-made image is
thrown away.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from carmel.storage.build.context import DiskImage, Workshop
from carmel.storage.build.cpio import Entry, archive
from carmel.storage.build.disk import (
    NATIVE_PROGRAMS,
    BootFiles,
    Disk,
    Installation,
    Layout,
    check_machine,
    compress,
    install,
    partition,
    write_boot_partition,
)
from carmel.storage.build.files import in_thread
from carmel.storage.build.initramfs import base_entries, module_entries, only, unpack
from carmel.storage.build.modules import Module, ModuleTree
from carmel.storage.build.recipe import Recipe
from carmel.units import GIB, MIB

_INSTALLED = (
    "?essential", "apt", "ca-certificates", "cloud-guest-utils", "cloud-init", "dbus", "e2fsprogs", "fdisk",
    "iproute2", "iputils-ping", "kmod", "less", "libpam-systemd", "linux-image-cloud-arm64", "nano", "openssh-server",
    "procps", "qemu-guest-agent", "sudo", "systemd-boot", "systemd-resolved", "systemd-sysv", "systemd-timesyncd",
    "udev", "usr-is-merged",
)  # fmt: skip
# For our initramfs only.
_NOT_INSTALLED = "busybox-static"
_INITRAMFS_MODULES = ("virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "ext4")
_INITRAMFS_OPTIONAL = ("crc32c_generic", "nvme", "xhci_pci", "usb_storage", "uas", "virtio_mmio")
_LAYOUT = Layout(disk=2 * GIB, esp=256 * MIB)
# The unpacked system has 400 MB; the tmpfs, dpkg and mke2fs work in memory.
_NEEDED_MEMORY = 1 * GIB


def debian_recipe() -> Recipe:
    """The recipe of ``debian``."""
    return Recipe(
        name="debian",
        summary="Debian 12 with systemd, cloud-init, guest agent and sshd, bootable by UEFI",
        kind="Disk",
        version=1,
        packages=(*_INSTALLED, _NOT_INSTALLED),
        programs=NATIVE_PROGRAMS,
        inputs=_inputs,
        make=_make,
        download_share=10,
    )


async def _make(workshop: Workshop) -> DiskImage:
    context, directory = workshop.context, workshop.directory
    check_machine(_NEEDED_MEMORY)
    context.progress(10, "preparing the disk")
    boot = directory / "boot"
    await unpack(context, workshop.archives, boot, ("linux-image-", "systemd-boot-efi_", _NOT_INSTALLED))
    kernel = only(boot.glob("boot/vmlinuz-*"), "kernel")
    version = kernel.name.removeprefix("vmlinuz-")
    disk = Disk(directory / "disk.raw", _LAYOUT, "debian", version, "rw console=ttyAMA0")
    await partition(context, disk)
    recipe = debian_recipe()
    await install(workshop, disk, Installation(recipe.apt(context), recipe.origin(context), (_NOT_INSTALLED,)))
    context.progress(80, "writing the boot partition")
    initrd = directory / "initrd"
    tree = ModuleTree(only(boot.glob("**/lib/modules/*"), "directory of kernel modules"), context.runner)
    modules = await tree.load_order(_INITRAMFS_MODULES, optional=_INITRAMFS_OPTIONAL)
    await in_thread(_write_initramfs, initrd, boot, modules)
    loader = boot / "usr/lib/systemd/boot/efi/systemd-bootaa64.efi"
    await write_boot_partition(workshop, disk, BootFiles("Debian", kernel, initrd, loader))
    context.progress(85, "compressing the disk")
    image = directory / "disk.qcow2"
    await compress(context, disk.raw, image)
    return DiskImage(image, "qcow2", _LAYOUT.disk)


def _write_initramfs(initrd: Path, boot: Path, modules: list[Module]) -> None:
    guest = resources.files("carmel.storage.build") / "debian_guest"
    entries = [
        *base_entries(boot),
        *module_entries(modules),
        Entry.file("init", (guest / "initramfs-init").read_bytes(), executable=True),
        Entry.directory("newroot"),
    ]
    initrd.write_bytes(gzip.compress(archive(entries), 6, mtime=0))


def _inputs() -> bytes:
    return b"".join(_input_parts())


def _input_parts() -> Iterator[bytes]:
    yield _LAYOUT.table.encode()
    folder = resources.files("carmel.storage.build") / "debian_guest"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        yield file.name.encode() + b"\0" + file.read_bytes() + b"\0"
