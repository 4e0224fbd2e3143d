"""The ``debian`` image: a UEFI-bootable Debian with systemd, cloud-init, the guest agent and sshd.

The way to a disk without mounts or loop devices on the machine, and without root where user namespaces allow:

1. packages are resolved and fetched by the private apt;
2. ``rootfs`` installs them in namespaces of its own, on a tmpfs that is gone with them, and writes the root file
   system straight into its partition of the raw disk (``mke2fs -d``);
3. kernel, a small initramfs of ours and systemd-boot are copied into the EFI system partition with mtools;
4. the raw disk becomes a compressed qcow2.

What makes it quick without KVM: dpkg unpacks as a native program and only maintainer scripts are emulated; Python's
byte code, the certificate bundle and the initramfs are made natively; nothing waits for fsync, as a half-made image is
thrown away.
"""

from __future__ import annotations

import gzip
import json
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from carmel import errors
from carmel.errors import CarmelError, Refused
from carmel.run import Command, Limits, ProgramFailed
from carmel.storage.build import sandbox
from carmel.storage.build.context import BuildContext, DiskImage, Workshop
from carmel.storage.build.cpio import Entry, archive
from carmel.storage.build.files import in_thread
from carmel.storage.build.initramfs import base_entries, module_entries, only, unpack
from carmel.storage.build.modules import Module, ModuleTree
from carmel.storage.build.packages import PrivateApt
from carmel.storage.build.programs import require
from carmel.storage.build.recipe import ARCHITECTURE, Recipe
from carmel.storage.build.sources import find_origin
from carmel.units import GIB, MIB

_SUITE = "bookworm"
_NATIVE_PROGRAMS = ("dpkg", "mkfs.ext4", "mkfs.vfat", "mmd", "mcopy", "sfdisk", "qemu-img", "tar", "chroot")
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
_VIRTUAL_SIZE = 2 * GIB
_ESP_START, _ESP_SIZE = 1 * MIB, 256 * MIB
_ROOT_START = _ESP_START + _ESP_SIZE
_ROOT_PARTITION_SIZE = _VIRTUAL_SIZE - _ROOT_START - 1 * MIB
# A file system of exactly its partition's size has been seen to be refused when the partition is rounded down.
_ROOT_FILE_SYSTEM_SIZE = _ROOT_PARTITION_SIZE - 2 * MIB
# The unpacked system has 400 MB; the tmpfs, dpkg and mke2fs work in memory.
_NEEDED_MEMORY = 1 * GIB
# Discoverable Partitions Specification: EFI system partition, root of 64-bit Arm.
_PARTITION_TABLE = f"""label: gpt
start={_ESP_START // 512}, size={_ESP_SIZE // 512}, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="esp"
start={_ROOT_START // 512}, size={_ROOT_PARTITION_SIZE // 512}, type=B921B045-1DF0-41C3-AF44-4C6F280D3FAE, name="root"
"""


@dataclass(frozen=True, slots=True)
class _Disk:
    raw: Path
    root_uuid: str
    kernel_version: str

    @property
    def kernel_command_line(self) -> str:
        return f"root=UUID={self.root_uuid} rw console=ttyAMA0"


def debian_recipe() -> Recipe:
    """The recipe of ``debian``."""
    return Recipe(
        name="debian",
        summary="Debian 12 with systemd, cloud-init, guest agent and sshd, bootable by UEFI",
        kind="Disk",
        version=1,
        packages=(*_INSTALLED, _NOT_INSTALLED),
        programs=_NATIVE_PROGRAMS,
        inputs=_inputs,
        make=_make,
        download_share=10,
        suite=_SUITE,
    )


async def _make(workshop: Workshop) -> DiskImage:
    context, directory = workshop.context, workshop.directory
    _check_machine()
    context.progress(10, "preparing the disk")
    boot = directory / "boot"
    await unpack(context, workshop.archives, boot, ("linux-image-", "systemd-boot-efi_", _NOT_INSTALLED))
    kernel = only(boot.glob("boot/vmlinuz-*"), "kernel")
    disk = _Disk(directory / "disk.raw", str(uuid.uuid4()), kernel.name.removeprefix("vmlinuz-"))
    await _partition(context, disk)
    await _install(workshop, disk)
    context.progress(80, "writing the boot partition")
    initrd = directory / "initrd"
    tree = ModuleTree(only(boot.glob("**/lib/modules/*"), "directory of kernel modules"), context.runner)
    modules = await tree.load_order(_INITRAMFS_MODULES, optional=_INITRAMFS_OPTIONAL)
    await in_thread(_write_initramfs, initrd, boot, modules)
    await _write_boot_partition(context, disk, kernel, initrd, boot)
    context.progress(85, "compressing the disk")
    image = directory / "disk.qcow2"
    await _compress(context, disk.raw, image)
    return DiskImage(image, "qcow2", _VIRTUAL_SIZE)


def _check_machine() -> None:
    if not sandbox.runs_arm64():
        require(("qemu-aarch64-static",))
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:") and int(line.split()[1]) * 1024 < _NEEDED_MEMORY:
            raise Refused(
                "too little memory is free to build a Debian image: it takes 1 GiB",
                code="NotEnoughMemory",
                hint="stop something, add swap, or pull the official image instead of building one",
            )


async def _partition(context: BuildContext, disk: _Disk) -> None:
    with disk.raw.open("xb") as file:
        file.truncate(_VIRTUAL_SIZE)
    await context.runner.run(
        Command(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk.raw], stdin=_PARTITION_TABLE.encode())
    )


async def _install(workshop: Workshop, disk: _Disk) -> None:
    """Run ``rootfs`` in a process of its own, which enters the namespaces. Its lines are progress, or the error."""
    context = workshop.context
    origin = find_origin(_SUITE, context.mirror)
    apt = PrivateApt(context.cache / f"apt-{_SUITE}-{ARCHITECTURE}", origin, ARCHITECTURE, context.runner)
    essential = await apt.resolve(("?essential", "usr-is-merged"), context.progress)
    order = {
        "archives": str(workshop.archives),
        "mount_point": str(workshop.directory / "root"),
        "essential": [package.name for package in essential],
        "not_installed": [_NOT_INSTALLED],
        "disk": str(disk.raw),
        "offset_bytes": _ROOT_START,
        "size_bytes": _ROOT_FILE_SYSTEM_SIZE,
        "root_uuid": disk.root_uuid,
        "kernel_command_line": disk.kernel_command_line,
        "sources_list": "".join(
            f"deb {source.uri} {source.suite} main\n"
            for source in origin.sources
            if source.uri.startswith(("http://", "https://")) and "@" not in source.uri
        ),
    }
    failure: list[CarmelError] = []

    def on_line(line: str) -> None:
        word, _, rest = line.partition(" ")
        if word == "progress":
            percent, _, message = rest.partition(" ")
            context.progress(12 + int(percent) * 68 // 100, message)
        elif word == "error":
            failure.append(_read_error(rest))

    command = Command(
        [Path(sys.executable), "-m", "carmel.storage.build.rootfs"],
        stdin=json.dumps(order).encode(),
        cwd=workshop.directory,
        limits=Limits(seconds=3600, output_bytes=64 * MIB),
    )
    try:
        await context.runner.run(command, on_line=on_line)
    except ProgramFailed as exc:
        raise (failure[0] if failure else exc) from exc


def _read_error(text: str) -> CarmelError:
    fields = json.loads(text)
    kind = getattr(errors, fields.pop("class"), CarmelError)
    assert issubclass(kind, CarmelError)
    return kind(fields.pop("message"), **fields)


def _write_initramfs(initrd: Path, boot: Path, modules: list[Module]) -> None:
    guest = resources.files("carmel.storage.build") / "debian_guest"
    entries = [
        *base_entries(boot),
        *module_entries(modules),
        Entry.file("init", (guest / "initramfs-init").read_bytes(), executable=True),
        Entry.directory("newroot"),
    ]
    initrd.write_bytes(gzip.compress(archive(entries), 6, mtime=0))


async def _write_boot_partition(context: BuildContext, disk: _Disk, kernel: Path, initrd: Path, boot: Path) -> None:
    """The layout of kernel-install(8) with the entry token ``debian``, so that later kernels go where it looks."""
    version = disk.kernel_version
    run = context.runner.run
    # mtools cannot use a FAT that was made at an offset, so it is made apart and copied into its partition.
    partition = boot / "esp.img"
    words = ["mkfs.vfat", "-F", "32", "-s", "2", "-n", "ESP", "-C"]
    await run(Command([*words, partition, str(_ESP_SIZE // 1024)]))
    folders = ["EFI", "EFI/BOOT", "EFI/systemd", "loader", "loader/entries", "debian", f"debian/{version}"]
    await run(Command(["mmd", "-i", partition, *(f"::/{folder}" for folder in folders)]))
    loader = boot / "usr/lib/systemd/boot/efi/systemd-bootaa64.efi"
    texts = boot / "texts"
    files = {
        "loader.conf": "timeout 0\ndefault debian-*\n",
        "entry.conf": f"title Debian\nversion {version}\nsort-key debian\noptions {disk.kernel_command_line}\n"
        f"linux /debian/{version}/linux\ninitrd /debian/{version}/initrd\n",
    }
    await in_thread(_write_texts, texts, files)
    for source, name in (
        (loader, "EFI/BOOT/BOOTAA64.EFI"),
        (loader, "EFI/systemd/systemd-bootaa64.efi"),
        (texts / "loader.conf", "loader/loader.conf"),
        (texts / "entry.conf", f"loader/entries/debian-{version}.conf"),
        (kernel, f"debian/{version}/linux"),
        (initrd, f"debian/{version}/initrd"),
    ):
        await run(Command(["mcopy", "-i", partition, source, f"::/{name}"]))
    await in_thread(_copy_into, partition, disk.raw, _ESP_START)


def _copy_into(source: Path, target: Path, offset: int) -> None:
    """Copy ``source`` to ``offset`` in ``target``; blocks of zeros stay holes."""
    with source.open("rb") as reader, target.open("r+b") as writer:
        while block := reader.read(64 * 1024):
            if block.strip(b"\0"):
                writer.seek(offset + reader.tell() - len(block))
                writer.write(block)


def _write_texts(folder: Path, texts: dict[str, str]) -> None:
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)


async def _compress(context: BuildContext, raw: Path, image: Path) -> None:
    def on_line(line: str) -> None:
        number = line.strip().removeprefix("(").partition(".")[0]
        if number.isdecimal():
            context.progress(85 + int(number) * 14 // 100, "compressing the disk")

    words = ["qemu-img", "convert", "-p", "-c", "-m", "4", "-W", "-f", "raw", "-O", "qcow2"]
    command = Command(
        [*words, "-o", "compression_type=zstd", raw, image],
        limits=Limits(seconds=900),
    )
    await context.runner.run(command, on_line=on_line)


def _inputs() -> bytes:
    return b"".join(_input_parts())


def _input_parts() -> Iterator[bytes]:
    yield _PARTITION_TABLE.encode()
    folder = resources.files("carmel.storage.build") / "debian_guest"
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        yield file.name.encode() + b"\0" + file.read_bytes() + b"\0"
