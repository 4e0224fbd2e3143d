"""The ``micro`` image: Debian's cloud kernel and an initramfs of busybox, the virtio drivers and the guest agent.

The guest prints ``carmel micro: ready nonce=N boot-id=B address=A`` on its console once its network is up (``N`` is
the value of ``carmel.nonce=`` on the kernel's command line; ``-`` where there is none), then gives a root shell
there. It turns itself off when the power button is pressed, booted by UEFI and ACPI or directly with a device tree.
``carmel.mount=vda`` mounts that disk on /mnt, ``carmel.hostname=`` names the guest; a module's parameters are taken
from there, too (``nvme_core.io_timeout=600``).

QEMU's guest agent and its libraries are 5.8 of the initramfs' 8.9 MB (2.3 of 3.7 MB compressed) and were measured to
cost 0.15 to 0.2 s of a boot that takes 2.2 s (emulated, 1 vCPU): worth it, as a host learns the guest's addresses
from nobody else. It is started only where the machine has the agent's channel.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources
from pathlib import Path

from carmel.storage.build.context import KernelBundle, Workshop
from carmel.storage.build.cpio import Entry, archive
from carmel.storage.build.files import in_thread
from carmel.storage.build.initramfs import base_entries, modprobe_entries, module_entries, only, unpack
from carmel.storage.build.libraries import library_entries
from carmel.storage.build.modules import Module, ModuleTree
from carmel.storage.build.recipe import Recipe

# No panic=: a kernel that panics stops with its last words on the console, where the host finds them. Debian's arm64
# kernels have no pvpanic driver that could tell it otherwise.
COMMAND_LINE = "console=ttyAMA0"
_REQUIRED_MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "virtio_rng", "evdev")
_ON_DEMAND_MODULES = ("8021q",)
"""The kernel asks for it when somebody makes a link of its kind: of a NIC that is a trunk."""
_OPTIONAL_MODULES = ("nvme", "virtio_scsi", "sd_mod", "gpio_keys", "virtio_balloon")
_KEPT_PACKAGES = (
    r"busybox-static|linux-image-.*|qemu-guest-agent|"
    r"libc6|libgcc-s1|libcap2|libglib2\.0-0(t64)?|libnuma1|libpcre2-8-0|libudev1|liburing2|zlib1g|libatomic1"
)
_GUEST_AGENT = "usr/sbin/qemu-ga"
# Where each of our files in micro_guest/ goes; all are scripts.
_SCRIPTS = {
    "agent": "etc/agent",
    "init": "init",
    "power-button": "etc/power-button",
    # acpid(8): the file that it runs for this event of a power button.
    "power-off": "etc/acpi/PWRF/00000080",
    "profile": "etc/profile",
    "rc": "etc/rc",
    "shutdown": "sbin/shutdown",
    "stop": "etc/stop",
    "udhcpc": "etc/udhcpc",
}


def micro_recipe(
    name: str = "micro",
    summary: str = "a kernel and busybox: boots in seconds, for tests and first impressions",
    *,
    modules: Sequence[str] = (),
    files: Sequence[Entry] = (),
) -> Recipe:
    """The recipe, with more kernel modules (loaded at boot, in order) and files than ``micro`` itself has."""

    async def make(workshop: Workshop) -> KernelBundle:
        return await _make(workshop, modules, files)

    def inputs() -> bytes:
        return repr((COMMAND_LINE, _ON_DEMAND_MODULES, tuple(modules))).encode() + archive([*_scripts(), *files])

    return Recipe(
        name=name,
        summary=summary,
        kind="Kernel",
        version=1,
        packages=("linux-image-cloud-arm64", "busybox-static", "qemu-guest-agent"),
        keep=_KEPT_PACKAGES,
        programs=(),
        inputs=inputs,
        make=make,
    )


async def _make(workshop: Workshop, modules: Sequence[str], files: Sequence[Entry]) -> KernelBundle:
    context = workshop.context
    context.progress(60, "unpacking packages")
    root = workshop.directory / "root"
    await unpack(context, workshop.archives, root)
    kernel = only(root.glob("boot/vmlinuz-*"), "kernel")
    tree = ModuleTree(only(root.glob("**/lib/modules/*"), "directory of kernel modules"), context.runner)
    loaded = await tree.load_order([*_REQUIRED_MODULES, *modules], optional=_OPTIONAL_MODULES)
    more = modprobe_entries(tree.version, await tree.load_order(_ON_DEMAND_MODULES), tree.builtin)
    context.progress(85, "writing the initramfs")
    initrd = workshop.directory / "initrd"
    await in_thread(_write_initramfs, initrd, root, loaded, [*more, *files])
    return KernelBundle(kernel.rename(workshop.directory / "kernel"), initrd, COMMAND_LINE)


def _write_initramfs(initrd: Path, root: Path, modules: Sequence[Module], files: Iterable[Entry]) -> None:
    entries = [
        *base_entries(root),
        *_scripts(),
        *_guest_agent(root),
        *module_entries(modules),
        *files,
    ]
    initrd.write_bytes(gzip.compress(archive(entries), 6, mtime=0))


def _scripts() -> Iterator[Entry]:
    guest = resources.files("carmel.storage.build") / "micro_guest"
    for name, path in _SCRIPTS.items():
        yield Entry.file(path, (guest / name).read_bytes(), executable=True)


def _guest_agent(root: Path) -> Iterator[Entry]:
    """The agent, and the libraries it needs directly or through others."""
    program = (root / _GUEST_AGENT).read_bytes()
    yield Entry.file(_GUEST_AGENT, program, executable=True)
    yield from library_entries(root, [program])
