"""The ``lab-host`` image: an Arm host that runs Carmel, small enough to start under emulation in seconds.

Debian's cloud kernel (KVM is built in) and an initramfs with busybox as init, Python, carmeld with its packages, what
it runs (QEMU, nft, dnsmasq) with the libraries they need, and the ``micro`` image ready-made. No systemd: busybox init
starts carmeld again when it ends. The console has a root shell.

The seed (cloud-init's NoCloud) names the host; user data that is a script is run at each boot, before carmeld: that is
how it gets its keys, and is told to be the Arm cores of a SmartNIC instead. A disk that is called ``state`` (its serial
number) keeps the state directory; without one that lies in memory.

Links are named by their MAC addresses where these have a meaning (``lab_host/links``).

One initramfs that is not compressed: docs/decisions/0008-lab-initramfs.md has the measurement.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

from carmel.storage.build.cache import ResultCache
from carmel.storage.build.context import KernelBundle, Workshop
from carmel.storage.build.cpio import Entry, archive, parts
from carmel.storage.build.files import in_thread
from carmel.storage.build.initramfs import base_entries, modprobe_entries, only, unpack
from carmel.storage.build.lab_modules import AT_BOOT, AT_BOOT_IF_THERE, ON_DEMAND
from carmel.storage.build.libraries import library_entries
from carmel.storage.build.modules import Module, ModuleTree
from carmel.storage.build.payload import (
    DEBIAN_PYTHON,
    PREFIX,
    READY_MADE,
    compile_python,
    payload_inputs,
    write_payload,
)
from carmel.storage.build.recipe import Recipe

COMMAND_LINE = "console=ttyAMA0"
_PROGRAMS = (
    "usr/bin/qemu-system-aarch64", "usr/bin/qemu-img", "usr/bin/qemu-storage-daemon", "usr/sbin/qemu-ga",
    f"usr/bin/python{DEBIAN_PYTHON}", "usr/bin/prlimit", "usr/bin/flock", "sbin/mke2fs", "sbin/e2fsck", "sbin/blkid",
    "usr/sbin/nft", "usr/sbin/dnsmasq",
)  # fmt: skip
# Carmel runs none of these; people do. Busybox' own ip can less.
_FOR_PEOPLE = {"bin/ip": "usr/bin/ip", "sbin/tc": "usr/bin/tc", "sbin/bridge": "usr/bin/bridge"}
# What the wanted packages draw in and nothing here uses.
_NOT_KEPT = (
    r"adduser|coreutils|dpkg|gcc-.*-base|initramfs-tools.*|iso-codes|klibc-utils|udev|passwd|qemu-system-data|tar"
)
_NOT_OF_PYTHON = frozenset({"test", "lib2to3", "pydoc_data", "ensurepip", "idlelib", "turtledemo"})
_USERS = "carmel-qemu:x:900:900:QEMU:/nonexistent:/bin/false\n"
_GROUPS = "tty:x:5:\nkvm:x:104:\ncarmel-qemu:x:900:\n"
# Where each of our files goes; all are scripts.
_SCRIPTS = {
    "lab_host/init": "init",
    "lab_host/rc": "etc/rc",
    "lab_host/links": "etc/links",
    "lab_host/carmeld": "etc/carmeld",
    "lab_host/ready": "etc/ready",
    "lab_host/profile": "etc/profile",
    "micro_guest/agent": "etc/agent",
    "micro_guest/power-button": "etc/power-button",
    "micro_guest/power-off": "etc/acpi/PWRF/00000080",
    "micro_guest/shutdown": "sbin/shutdown",
    "micro_guest/stop": "etc/stop",
    "micro_guest/udhcpc": "etc/udhcpc",
}


def lab_host_recipe(guest: Recipe) -> Recipe:
    """The recipe; ``guest`` makes the image that is in it ready-made, out of packages that this one has too."""

    async def make(workshop: Workshop) -> KernelBundle:
        return await _make(workshop, guest)

    def inputs() -> bytes:
        return COMMAND_LINE.encode() + archive(_scripts()) + payload_inputs() + guest.inputs()

    return Recipe(
        name="lab-host",
        summary="an Arm host that runs Carmel, for labs: emulated, with KVM inside",
        kind="Kernel",
        version=2,
        packages=(
            *guest.packages,
            f"python{DEBIAN_PYTHON}",
            "qemu-system-arm",
            "qemu-utils",
            "e2fsprogs",
            "util-linux",
            "nftables",
            "dnsmasq-base",
            "iproute2",
        ),
        keep=rf"(?!({_NOT_KEPT})$).*",
        programs=(),
        inputs=inputs,
        make=make,
        download_share=40,
    )


async def _make(workshop: Workshop, guest: Recipe) -> KernelBundle:
    context, directory = workshop.context, workshop.directory
    context.progress(40, "unpacking packages")
    root = directory / "root"
    await unpack(context, workshop.archives, root)
    kernel = only(root.glob("boot/vmlinuz-*"), "kernel")
    tree = ModuleTree(only(root.glob("**/lib/modules/*"), "directory of kernel modules"), context.runner)
    modules = await tree.load_order((*AT_BOOT, *ON_DEMAND), optional=AT_BOOT_IF_THERE)
    context.progress(60, "adding Carmel")
    payload = directory / "payload"
    await in_thread(payload.mkdir)
    await write_payload(context, payload)
    await compile_python(context, root, f"usr/lib/python{DEBIAN_PYTHON}", "/", DEBIAN_PYTHON)
    context.progress(80, "adding the guest's image")
    # A guest in an emulated machine takes longer to print what its kernel says than to do it.
    await add_guest(workshop, guest, payload, words=" quiet")
    context.progress(90, "writing the initramfs")
    initrd = directory / "initrd"
    await in_thread(_write_initramfs, initrd, root, payload, tree, modules)
    return KernelBundle(kernel.rename(directory / "kernel"), initrd, COMMAND_LINE)


async def add_guest(workshop: Workshop, guest: Recipe, payload: Path, *, words: str = "") -> None:
    """Make the guest's image of the packages that are here, and keep it where a host looks before it builds.

    ``words`` are added to its kernel's command line.
    """
    context, directory = workshop.context, workshop.directory / "guest"
    archives, made = directory / "archives", directory / "image"
    await in_thread(_pick, guest, workshop.archives, archives)
    made.mkdir()
    quiet = replace(context, progress=lambda _percent, message: context.progress(80, message))
    bundle = await guest.make(Workshop(quiet, workshop.packages, archives, made))
    assert isinstance(bundle, KernelBundle)
    bundle = replace(bundle, command_line=bundle.command_line + words)
    await in_thread(ResultCache(payload / READY_MADE).put, guest.name, bundle)


def _pick(guest: Recipe, archives: Path, into: Path) -> None:
    into.mkdir(parents=True)
    for path in archives.glob("*.deb"):
        if guest.keep is None or re.fullmatch(guest.keep, path.name.partition("_")[0]):
            (into / path.name).hardlink_to(path)


def _write_initramfs(initrd: Path, root: Path, payload: Path, tree: ModuleTree, modules: Sequence[Module]) -> None:
    library, extensions = f"usr/lib/python{DEBIAN_PYTHON}", [*root.glob("usr/lib/python*/lib-dynload/*.so")]
    programs = {name: root / name for name in _PROGRAMS} | {to: root / name for name, to in _FOR_PEOPLE.items()}
    needing = [*programs.values(), *extensions, *payload.rglob("*.so")]
    loaded = [module.name for module in modules if module.name in {*AT_BOOT, *AT_BOOT_IF_THERE}]
    entries = [
        *base_entries(root, users=_USERS, groups=_GROUPS),
        *_scripts(),
        *modprobe_entries(tree.version, modules, tree.builtin),
        Entry.file("etc/modules", "".join(f"{name}\n" for name in loaded).encode()),
        *(Entry.file(name, path, executable=True) for name, path in programs.items()),
        *library_entries(root, (path.read_bytes() for path in needing)),
        *_tree(root / library, library, _NOT_OF_PYTHON),
        *_tree(payload, PREFIX.lstrip("/")),
    ]
    with initrd.open("xb") as file:
        file.writelines(parts(entries))


def _scripts() -> Iterator[Entry]:
    files = resources.files("carmel.storage.build")
    for name, path in _SCRIPTS.items():
        yield Entry.file(path, (files / name).read_bytes(), executable=True)


def _tree(directory: Path, path: str, without: Container[str] = ()) -> Iterator[Entry]:
    """What lies in ``directory``, as ``path``; ``without`` names entries of the directory itself."""
    for found in directory.iterdir():
        below = f"{path}/{found.name}"
        if found.name in without:
            continue
        if found.is_symlink():
            yield Entry.symlink(below, str(found.readlink()))
        elif found.is_dir():
            yield Entry.directory(below)
            yield from _tree(found, below)
        else:
            yield Entry.file(below, found, executable=bool(found.stat().st_mode & stat.S_IXUSR))
