"""A disk that UEFI boots: an EFI system partition with systemd-boot, and a root file system of Debian packages.

Made without mounts or loop devices on the machine, and without root where user namespaces allow: ``rootfs`` installs
the packages in namespaces of its own and writes the root file system straight into its partition of the raw disk
(``mke2fs -d``); kernel, initramfs and systemd-boot are copied into the EFI system partition with mtools.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from carmel import errors
from carmel.errors import CarmelError, Refused
from carmel.run import Command, Limits, ProgramFailed
from carmel.storage.build import sandbox
from carmel.storage.build.context import BuildContext, Workshop
from carmel.storage.build.files import in_thread
from carmel.storage.build.packages import PrivateApt
from carmel.storage.build.programs import require
from carmel.storage.build.sources import Origin
from carmel.units import GIB, MIB

BOOT_PROGRAMS = ("mkfs.vfat", "mmd", "mcopy", "sfdisk", "qemu-img")
"""What a disk takes that has an EFI system partition and nothing else."""
NATIVE_PROGRAMS = (*BOOT_PROGRAMS, "dpkg", "mkfs.ext4", "tar", "chroot")
_ESP_START = 1 * MIB


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes in bytes of the disk and of its EFI system partition; the root partition has the rest, if there is any."""

    disk: int
    esp: int

    @property
    def cluster_sectors(self) -> int:
        """Of the EFI system partition: a FAT32 has 65,525 clusters or more (Microsoft's specification of FAT)."""
        return 2 if self.esp >= 72 * MIB else 1

    @property
    def root_start(self) -> int:
        return _ESP_START + self.esp

    @property
    def root_partition(self) -> int:
        return max(0, self.disk - self.root_start - 1 * MIB)

    @property
    def root_file_system(self) -> int:
        """One of exactly its partition's size has been seen to be refused when the partition is rounded down."""
        return self.root_partition - 2 * MIB

    @property
    def table(self) -> str:
        """For sfdisk(8). Types as in the Discoverable Partitions Specification: ESP, root of 64-bit Arm."""
        esp, root = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "B921B045-1DF0-41C3-AF44-4C6F280D3FAE"
        table = f'label: gpt\nstart={_ESP_START // 512}, size={self.esp // 512}, type={esp}, name="esp"\n'
        if not self.root_partition:
            return table
        return table + f'start={self.root_start // 512}, size={self.root_partition // 512}, type={root}, name="root"\n'


def _serial_number() -> str:
    """Of a FAT file system: 32 bits, in hexadecimal."""
    return uuid.uuid4().hex[:8].upper()


@dataclass(frozen=True, slots=True)
class Disk:
    """A raw disk in the making. ``token`` names the system on the EFI system partition (kernel-install(8))."""

    raw: Path
    layout: Layout
    token: str
    kernel_version: str
    kernel_options: str
    root_uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    esp_uuid: str = field(default_factory=_serial_number)

    @property
    def kernel_command_line(self) -> str:
        root = f"root=UUID={self.root_uuid} " if self.layout.root_partition else ""
        return root + self.kernel_options

    @property
    def esp_device(self) -> str:
        """As fstab(5) names it."""
        return f"UUID={self.esp_uuid[:4]}-{self.esp_uuid[4:]}"


@dataclass(frozen=True, slots=True)
class BootFiles:
    """What goes onto the EFI system partition. ``texts``: more files at its top, by name."""

    title: str
    kernel: Path
    initrd: Path
    loader: Path
    texts: Mapping[str, str] = field(default_factory=dict)


def check_machine(memory_bytes: int) -> None:
    """Raises ``Refused``: no way to run arm64 programs, or too little free memory."""
    if not sandbox.runs_arm64():
        require(("qemu-aarch64-static",))
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:") and int(line.split()[1]) * 1024 < memory_bytes:
            raise Refused(
                f"too little memory is free to build this image: it takes {memory_bytes / GIB:.0f} GiB",
                code="NotEnoughMemory",
                hint="stop something or add swap, then build again",
            )


async def partition(context: BuildContext, disk: Disk) -> None:
    with disk.raw.open("xb") as file:
        file.truncate(disk.layout.disk)
    words: list[str | Path] = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", disk.raw]
    await context.runner.run(Command(words, stdin=disk.layout.table.encode()))


@dataclass(frozen=True, slots=True)
class Installation:
    """What ``rootfs`` is to install: all of the workshop's packages but ``not_installed``.

    ``payload`` is the tree that makes it a Carmel host. ``base`` is a file (tar, zstd) that keeps the installed
    packages: taken where it is there, else written.
    """

    apt: PrivateApt
    origin: Origin
    not_installed: tuple[str, ...] = ()
    payload: Path | None = None
    base: Path | None = None


async def install(workshop: Workshop, disk: Disk, wanted: Installation) -> None:
    """Run ``rootfs`` in a process of its own, which enters the namespaces. Its lines are progress, or the error."""
    context = workshop.context
    essential = await wanted.apt.resolve(("?essential", "usr-is-merged"), context.progress)
    order = {
        "system": disk.token,
        "archives": str(workshop.archives),
        "mount_point": str(workshop.directory / "root"),
        "essential": [package.name for package in essential],
        "not_installed": list(wanted.not_installed),
        "disk": str(disk.raw),
        "offset_bytes": disk.layout.root_start,
        "size_bytes": disk.layout.root_file_system,
        "root_uuid": disk.root_uuid,
        "esp_device": disk.esp_device,
        "kernel_command_line": disk.kernel_command_line,
        "sources_list": wanted.origin.for_the_image(),
        "payload": str(wanted.payload) if wanted.payload else None,
        "base": str(wanted.base) if wanted.base else None,
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


async def write_boot_partition(workshop: Workshop, disk: Disk, files: BootFiles) -> None:
    """The layout of kernel-install(8) with the disk's entry token, so that later kernels go where it looks."""
    context, folder = workshop.context, workshop.directory / "esp"
    token, version = disk.token, disk.kernel_version
    run = context.runner.run
    # mtools cannot use a FAT that was made at an offset, so it is made apart and copied into its partition.
    image = workshop.directory / "esp.img"
    words = ["mkfs.vfat", "-F", "32", "-s", str(disk.layout.cluster_sectors), "-n", "ESP", "-i", disk.esp_uuid, "-C"]
    await run(Command([*words, image, str(disk.layout.esp // 1024)]))
    folders = ["EFI", "EFI/BOOT", "EFI/systemd", "loader", "loader/entries", token, f"{token}/{version}"]
    await run(Command(["mmd", "-i", image, *(f"::/{name}" for name in folders)]))
    texts = {
        "loader/loader.conf": f"timeout 0\ndefault {token}-*\n",
        f"loader/entries/{token}-{version}.conf": f"title {files.title}\nversion {version}\nsort-key {token}\n"
        f"options {disk.kernel_command_line}\nlinux /{token}/{version}/linux\ninitrd /{token}/{version}/initrd\n",
        **files.texts,
    }
    written = await in_thread(_write_texts, folder, texts)
    for source, name in (
        (files.loader, "EFI/BOOT/BOOTAA64.EFI"),
        (files.loader, "EFI/systemd/systemd-bootaa64.efi"),
        (files.kernel, f"{token}/{version}/linux"),
        (files.initrd, f"{token}/{version}/initrd"),
        *written,
    ):
        await run(Command(["mcopy", "-i", image, source, f"::/{name}"]))
    await in_thread(_copy_into, image, disk.raw, _ESP_START)


def _write_texts(folder: Path, texts: Mapping[str, str]) -> list[tuple[Path, str]]:
    """Each with its place on the partition."""
    folder.mkdir()
    written = []
    for number, (name, text) in enumerate(texts.items()):
        file = folder / str(number)
        file.write_text(text)
        written.append((file, name))
    return written


def _copy_into(source: Path, target: Path, offset: int) -> None:
    """Copy ``source`` to ``offset`` in ``target``; blocks of zeros stay holes."""
    with source.open("rb") as reader, target.open("r+b") as writer:
        while block := reader.read(64 * 1024):
            if block.strip(b"\0"):
                writer.seek(offset + reader.tell() - len(block))
                writer.write(block)


async def compress(context: BuildContext, raw: Path, image: Path) -> None:
    """Make the raw disk a compressed qcow2."""

    def on_line(line: str) -> None:
        number = line.strip().removeprefix("(").partition(".")[0]
        if number.isdecimal():
            context.progress(85 + int(number) * 14 // 100, "compressing the disk")

    words = ["qemu-img", "convert", "-p", "-c", "-m", "4", "-W", "-f", "raw", "-O", "qcow2"]
    command = Command([*words, "-o", "compression_type=zstd", raw, image], limits=Limits(seconds=900))
    await context.runner.run(command, on_line=on_line)
