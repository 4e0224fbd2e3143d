"""The ``host`` image: a disk that makes a 64-bit Arm machine with UEFI a Carmel host.

For SystemReady machines, for boards with a UEFI of their own, and for VMs: written to an SSD or a USB stick as it is.
Debian with its kernel for real hardware and the firmware that NICs and disk controllers load, QEMU, Carmel as a
systemd service, the tools for LVM, NFS and NVMe. The EFI system partition carries ``carmel.yaml.example``; a
``carmel.yaml`` beside it is what the machine becomes (``carmel.firstboot``).

Carmel itself changes far more often than Debian's packages: what dpkg made of those is kept by their versions, so
that a new build takes a fraction of the first one's time.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from importlib import resources

from carmel.storage.build.context import DiskImage, Workshop
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
from carmel.storage.build.host_initramfs import write_initramfs
from carmel.storage.build.initramfs import only, unpack
from carmel.storage.build.lab_host import add_guest
from carmel.storage.build.payload import payload_inputs, write_payload
from carmel.storage.build.recipe import Recipe
from carmel.units import GIB, MIB

SYSTEM = "carmel"
"""The system's name on the EFI system partition, and the host's until it is given one."""
EXAMPLE = "carmel.yaml.example"
_INSTALLED = (
    # The system.
    "?essential", "apt", "ca-certificates", "dbus", "dosfstools", "e2fsprogs", "fdisk", "iproute2", "iputils-ping",
    "kmod", "less", "libpam-systemd", "linux-image-arm64", "nano", "openssh-server", "procps", "python3",
    "systemd-boot", "systemd-resolved", "systemd-sysv", "systemd-timesyncd", "udev", "usr-is-merged",
    # What Carmel runs VMs with.
    "dnsmasq-base", "nftables", "openssh-client", "passt", "qemu-efi-aarch64", "qemu-system-arm", "qemu-utils",
    # Storage and the silicon, as the administrator meets them.
    "ethtool", "lvm2", "nfs-common", "nfs-kernel-server", "numactl", "nvme-cli", "pciutils", "smartmontools",
    "usbutils",
    # Without these, NICs of Realtek and Broadcom, QLogic's adapters and Tegra's USB controller stay dark.
    "firmware-bnx2", "firmware-bnx2x", "firmware-linux-free", "firmware-misc-nonfree", "firmware-qlogic",
    "firmware-realtek",
)  # fmt: skip
# For our initramfs, and for the guest's image that the host has ready-made.
_BUSYBOX, _GUEST_KERNEL, _GUEST_AGENT = "busybox-static", r"linux-image-.*cloud-arm64", "qemu-guest-agent"
_LAYOUT = Layout(disk=3584 * MIB, esp=512 * MIB)
_KERNEL_OPTIONS = "ro console=tty0 console=ttyAMA0 loglevel=4"
_NEEDED_MEMORY = 4 * GIB
# Of what dpkg makes of the packages: counts up when ``rootfs`` installs in another way.
_BASE_VERSION = 1


def host_recipe(guest: Recipe) -> Recipe:
    """The recipe; ``guest`` makes the image that is on the host ready-made, so that a first VM needs no network."""

    async def make(workshop: Workshop) -> DiskImage:
        return await _make(workshop, recipe, guest)

    recipe = Recipe(
        name="host",
        summary="a Carmel host for a UEFI machine: Debian 12, QEMU and Carmel on a disk to write to an SSD or a stick",
        kind="Disk",
        version=2,
        packages=(*_INSTALLED, *guest.packages),
        programs=(*NATIVE_PROGRAMS, "zstd"),
        inputs=lambda: b"".join(_inputs(guest)),
        make=make,
        download_share=10,
        components=("main", "non-free-firmware"),
    )
    return recipe


async def _make(workshop: Workshop, recipe: Recipe, guest: Recipe) -> DiskImage:
    context, directory = workshop.context, workshop.directory
    check_machine(_NEEDED_MEMORY)
    context.progress(10, "preparing the disk")
    payload = directory / "payload"
    payload.mkdir()
    await write_payload(context, payload)
    await add_guest(workshop, guest, payload)
    names = [package.name for package in workshop.packages]
    spared = [name for name in names if re.fullmatch(f"{_BUSYBOX}|{_GUEST_KERNEL}|{_GUEST_AGENT}", name)]
    kernels = tuple(f"{name}_" for name in names if name.startswith("linux-image-") and name not in spared)
    boot = directory / "boot"
    await unpack(context, workshop.archives, boot, (*kernels, "systemd-boot-efi_", f"{_BUSYBOX}_"))
    kernel = only(boot.glob("boot/vmlinuz-*"), "kernel")
    version = kernel.name.removeprefix("vmlinuz-")
    disk = Disk(directory / "disk.raw", _LAYOUT, SYSTEM, version, _KERNEL_OPTIONS)
    await partition(context, disk)
    base = context.cache / "bases" / f"{SYSTEM}-{_base_key(workshop)}.tar.zst"
    wanted = Installation(recipe.apt(context), recipe.origin(context), tuple(spared), payload, base)
    await install(workshop, disk, wanted)
    context.progress(80, "writing the boot partition")
    initrd = directory / "initrd"
    await write_initramfs(context, boot, version, initrd)
    loader = boot / "usr/lib/systemd/boot/efi/systemd-bootaa64.efi"
    files = BootFiles("Carmel host", kernel, initrd, loader, {EXAMPLE: _example()})
    await write_boot_partition(workshop, disk, files)
    context.progress(85, "compressing the disk")
    image = directory / "disk.qcow2"
    await compress(context, disk.raw, image)
    return DiskImage(image, "qcow2", _LAYOUT.disk)


def _base_key(workshop: Workshop) -> str:
    facts = [_BASE_VERSION, sorted(str(package) for package in workshop.packages)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _example() -> str:
    return (resources.files("carmel.firstboot") / EXAMPLE).read_text("utf-8")


def _inputs(guest: Recipe) -> Iterator[bytes]:
    """The payload holds the guest's files and the example too: they are part of Carmel."""
    yield _LAYOUT.table.encode() + _KERNEL_OPTIONS.encode()
    yield payload_inputs()
    yield guest.inputs()
